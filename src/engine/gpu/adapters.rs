//! Which adapters there are, and which one is meant.

use schemars::JsonSchema;
use serde::Serialize;

use super::shaders::{Core, KERNELS, Shader, WORKGROUP};
use crate::engine::{DeviceChoice, DeviceInfo};
use crate::error::{Error, Result};

/// An adapter as `vecdrift devices` lists it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct AdapterInfo {
    /// What `--device INDEX` means.
    pub index: usize,
    /// The device.
    pub device: DeviceInfo,
    /// `discrete`, `integrated`, `virtual`, `software` or `other`.
    pub kind: String,
    /// Driver and its version.
    pub driver: String,
    /// Largest buffer, in bytes.
    pub max_buffer_bytes: u64,
    /// Largest part of a buffer that a kernel sees, in bytes.
    pub max_binding_bytes: u64,
    /// Workgroup memory, in bytes.
    pub workgroup_memory_bytes: u32,
    /// Smallest and largest subgroup, in invocations; `None` where subgroups are not to be had.
    pub subgroup_sizes: Option<[u32; 2]>,
    /// Half-precision arithmetic.
    pub shader_f16: bool,
    /// Time stamps on the device.
    pub timestamps: bool,
    /// Cooperative matrices (tensor cores), as `f16 x f16 -> f32 16x16x16`; empty without them.
    pub cooperative_matrices: Vec<String>,
    /// Why the kernels cannot run there; `None` where they can.
    pub unusable: Option<String>,
}

/// The adapters, hardware first.
pub fn adapters() -> Vec<AdapterInfo> {
    all().iter().enumerate().map(describe).collect()
}

/// The first hardware adapter that can run the kernels, if there is one.
pub fn hardware_adapter() -> Option<DeviceInfo> {
    if !has_device_files() {
        return None;
    }
    all()
        .iter()
        .find(|adapter| !is_software(adapter) && lacking(&adapter.limits()).is_none())
        .map(device_info)
}

/// Whether a hardware GPU is possible at all. Loading drivers takes time, and some complain on stderr; on
/// Linux, a GPU without a device file does not exist.
fn has_device_files() -> bool {
    const FILES: [&str; 4] = ["/dev/dri", "/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"];
    !cfg!(target_os = "linux") || FILES.iter().any(|path| std::path::Path::new(path).exists())
}

/// The index in [`adapters`] of the one that `choice` means.
///
/// # Errors
/// There is none.
pub fn adapter_index(choice: &DeviceChoice) -> Result<usize> {
    position(choice, &adapters())
}

/// The indices of every usable hardware adapter, or of every usable software one where there is no other.
///
/// # Errors
/// There is none.
pub fn all_adapters() -> Result<Vec<usize>> {
    let usable: Vec<AdapterInfo> = adapters()
        .into_iter()
        .filter(|adapter| adapter.unusable.is_none())
        .collect();
    let of_kind = |software| -> Vec<usize> {
        let of = usable.iter().filter(|a| a.device.software == software);
        of.map(|adapter| adapter.index).collect()
    };
    let hardware = of_kind(false);
    let all = if hardware.is_empty() {
        of_kind(true)
    } else {
        hardware
    };
    if all.is_empty() {
        // The reason why none is usable.
        choose(&DeviceChoice::Gpu)?;
    }
    Ok(all)
}

/// The adapter that `choice` means.
pub(super) fn choose(choice: &DeviceChoice) -> Result<wgpu::Adapter> {
    let mut adapters = all();
    let at = position(
        choice,
        &adapters
            .iter()
            .enumerate()
            .map(describe)
            .collect::<Vec<_>>(),
    )?;
    let adapter = adapters.swap_remove(at);
    if let Some(lack) = lacking(&adapter.limits()) {
        return Err(Error::device(&adapter.get_info().name, lack).hint("use --device cpu"));
    }
    Ok(adapter)
}

/// Index of the adapter that `choice` means.
fn position(choice: &DeviceChoice, adapters: &[AdapterInfo]) -> Result<usize> {
    if adapters.is_empty() {
        return Err(Error::device("gpu", "no adapter found").hint(
            "install a driver (mesa-vulkan-drivers has a software one) or use --device cpu",
        ));
    }
    let (wanted, found) = match choice {
        DeviceChoice::Index(index) => (
            format!("adapter {index}"),
            adapters.iter().position(|a| a.index == *index),
        ),
        DeviceChoice::Name(name) => {
            let lower = name.to_lowercase();
            let matches = |a: &AdapterInfo| a.device.name.to_lowercase().contains(&lower);
            (
                format!("an adapter named \"{name}\""),
                adapters.iter().position(matches),
            )
        }
        // The first that works, and should none work, the reason why the first does not.
        DeviceChoice::Auto | DeviceChoice::Gpu | DeviceChoice::Cpu | DeviceChoice::All => (
            "an adapter".to_owned(),
            adapters
                .iter()
                .position(|a| a.unusable.is_none())
                .or(Some(0)),
        ),
    };
    found.ok_or_else(|| {
        let names: Vec<_> = adapters
            .iter()
            .map(|a| format!("{} \"{}\"", a.index, a.device.name))
            .collect();
        Error::device(
            "gpu",
            format!("{wanted} was asked for, found {}", names.join(", ")),
        )
        .hint("vecdrift devices lists them")
    })
}

/// Every adapter, hardware first, otherwise in the order in which the drivers name them.
fn all() -> Vec<wgpu::Adapter> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor::new_without_display_handle());
    let mut adapters = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::PRIMARY));
    adapters.retain(|adapter| adapter.get_info().backend != wgpu::Backend::Noop);
    adapters.sort_by_key(|adapter| match adapter.get_info().device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    adapters
}

fn is_software(adapter: &wgpu::Adapter) -> bool {
    adapter.get_info().device_type == wgpu::DeviceType::Cpu
}

/// The adapter as a device that runs computations.
pub(super) fn device_info(adapter: &wgpu::Adapter) -> DeviceInfo {
    let info = adapter.get_info();
    DeviceInfo {
        name: info.name,
        backend: info.backend.to_string(),
        precision: "f32".to_owned(),
        software: info.device_type == wgpu::DeviceType::Cpu,
    }
}

/// What the kernels need and the adapter lacks.
fn lacking(limits: &wgpu::Limits) -> Option<String> {
    let buffers = KERNELS.iter().map(|k| k.bindings.len() as u32 - 1).max();
    let storage = KERNELS
        .iter()
        .map(|kernel| Shader::new(kernel, Core::PLAIN).workgroup_storage)
        .max();
    let needs = [
        (
            "storage buffers per kernel",
            buffers.unwrap_or(0),
            limits.max_storage_buffers_per_shader_stage,
        ),
        (
            "invocations per workgroup",
            WORKGROUP,
            limits
                .max_compute_invocations_per_workgroup
                .min(limits.max_compute_workgroup_size_x),
        ),
        (
            "bytes of workgroup memory",
            storage.unwrap_or(0),
            limits.max_compute_workgroup_storage_size,
        ),
    ];
    let (what, needed, has) = needs.into_iter().find(|&(_, needed, has)| has < needed)?;
    Some(format!("{has} {what}, the kernels need {needed}"))
}

fn describe((index, adapter): (usize, &wgpu::Adapter)) -> AdapterInfo {
    let (info, limits, features) = (adapter.get_info(), adapter.limits(), adapter.features());
    let cooperative = features.contains(wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX);
    AdapterInfo {
        index,
        device: device_info(adapter),
        kind: match info.device_type {
            wgpu::DeviceType::DiscreteGpu => "discrete",
            wgpu::DeviceType::IntegratedGpu => "integrated",
            wgpu::DeviceType::VirtualGpu => "virtual",
            wgpu::DeviceType::Cpu => "software",
            wgpu::DeviceType::Other => "other",
        }
        .to_owned(),
        driver: format!("{} {}", info.driver, info.driver_info)
            .trim()
            .to_owned(),
        max_buffer_bytes: limits.max_buffer_size,
        max_binding_bytes: limits.max_storage_buffer_binding_size,
        workgroup_memory_bytes: limits.max_compute_workgroup_storage_size,
        subgroup_sizes: features
            .contains(wgpu::Features::SUBGROUP)
            .then_some([info.subgroup_min_size, info.subgroup_max_size]),
        shader_f16: features.contains(wgpu::Features::SHADER_F16),
        timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
        cooperative_matrices: if cooperative {
            adapter
                .cooperative_matrix_properties()
                .iter()
                .map(|p| {
                    let (ab, cr) = (format!("{:?}", p.ab_type), format!("{:?}", p.cr_type));
                    let (ab, cr) = (ab.to_lowercase(), cr.to_lowercase());
                    format!("{ab} x {ab} -> {cr} {}x{}x{}", p.m_size, p.n_size, p.k_size)
                })
                .collect()
        } else {
            Vec::new()
        },
        unusable: lacking(&limits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adapter(index: usize, name: &str, unusable: Option<&str>) -> AdapterInfo {
        AdapterInfo {
            index,
            device: DeviceInfo {
                name: name.to_owned(),
                backend: "vulkan".to_owned(),
                precision: "f32".to_owned(),
                software: false,
            },
            kind: "discrete".to_owned(),
            driver: String::new(),
            max_buffer_bytes: 0,
            max_binding_bytes: 0,
            workgroup_memory_bytes: 0,
            subgroup_sizes: None,
            shader_f16: false,
            timestamps: false,
            cooperative_matrices: Vec::new(),
            unusable: unusable.map(str::to_owned),
        }
    }

    #[test]
    fn adapters_are_chosen_by_index_and_by_part_of_the_name() {
        let there = [
            adapter(0, "Old Card", Some("too old")),
            adapter(1, "NVIDIA H100", None),
            adapter(2, "llvmpipe", None),
        ];
        let at = |choice| position(&choice, &there).unwrap();
        assert_eq!(at(DeviceChoice::Gpu), 1);
        assert_eq!(at(DeviceChoice::Index(2)), 2);
        assert_eq!(at(DeviceChoice::Name("nvidia".into())), 1);
        assert_eq!(position(&DeviceChoice::Gpu, &there[..1]).unwrap(), 0);

        let error = position(&DeviceChoice::Name("radeon".into()), &there).unwrap_err();
        assert!(error.is_device());
        assert_eq!(
            error.to_string(),
            "gpu: an adapter named \"radeon\" was asked for, found 0 \"Old Card\", 1 \"NVIDIA H100\", 2 \"llvmpipe\""
        );
        assert_eq!(error.hint_text(), Some("vecdrift devices lists them"));
        assert!(position(&DeviceChoice::Index(3), &there).is_err());
        let none = position(&DeviceChoice::Gpu, &[]).unwrap_err();
        assert!(none.hint_text().unwrap().contains("mesa-vulkan-drivers"));
    }

    #[test]
    fn a_lack_is_named() {
        let enough = wgpu::Limits::default();
        assert_eq!(lacking(&enough), None);
        let few = wgpu::Limits {
            max_storage_buffers_per_shader_stage: 4,
            ..enough
        };
        assert_eq!(
            lacking(&few).unwrap(),
            "4 storage buffers per kernel, the kernels need 8"
        );
    }
}
