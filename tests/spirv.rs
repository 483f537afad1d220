//! Every shader variant as Vulkan drivers get it, through `spirv-val`: it knows rules of Vulkan's that
//! naga's validator does not, on capabilities, memory models and the layout of buffers.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};
use spv::Capability;
use vecdrift::engine::gpu::shaders::variants;

/// A kind of Vulkan device.
struct Target {
    /// What `spirv-val` calls it.
    environment: &'static str,
    /// The SPIR-V version that wgpu writes for it.
    version: (u8, u8),
    /// What a shader may use there.
    features: Capabilities,
    /// What wgpu then declares at most.
    capabilities: &'static [Capability],
}

const TARGETS: [Target; 3] = [
    Target {
        environment: "vulkan1.1",
        version: (1, 3),
        features: Capabilities::SHADER_FLOAT16.union(Capabilities::SHADER_FLOAT16_IN_FLOAT32),
        capabilities: &[Capability::Shader, Capability::Float16],
    },
    Target {
        environment: "vulkan1.2",
        version: (1, 5),
        features: Capabilities::SHADER_FLOAT16.union(Capabilities::SHADER_FLOAT16_IN_FLOAT32),
        capabilities: &[Capability::Shader, Capability::Float16],
    },
    Target {
        environment: "vulkan1.3",
        version: (1, 6),
        features: Capabilities::SHADER_FLOAT16
            .union(Capabilities::SHADER_FLOAT16_IN_FLOAT32)
            .union(Capabilities::COOPERATIVE_MATRIX)
            .union(Capabilities::SUBGROUP)
            .union(Capabilities::SUBGROUP_BARRIER),
        capabilities: &[
            Capability::Shader,
            Capability::Float16,
            Capability::GroupNonUniform,
            Capability::GroupNonUniformVote,
            Capability::GroupNonUniformArithmetic,
            Capability::GroupNonUniformBallot,
            Capability::GroupNonUniformShuffle,
            Capability::GroupNonUniformShuffleRelative,
            Capability::GroupNonUniformQuad,
            Capability::CooperativeMatrixKHR,
            Capability::VulkanMemoryModel,
        ],
    },
];

/// The module that wgpu 30 hands to a driver for a trusted shader (`open` in wgpu-hal's
/// vulkan/adapter.rs, `compile_stage` in vulkan/device.rs), or the feature that the target lacks.
fn translated(source: &str, target: &Target) -> Result<Vec<u32>, String> {
    let module = naga::front::wgsl::parse_str(source)
        .unwrap_or_else(|e| panic!("{}", e.emit_to_string(source)));
    let info = Validator::new(ValidationFlags::all(), target.features)
        .validate(&module)
        .map_err(|e| e.emit_to_string(source))?;
    let unchecked = BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: target.version,
        flags: spv::WriterFlags::LABEL_VARYINGS | spv::WriterFlags::FORCE_POINT_SIZE,
        capabilities: Some(target.capabilities.iter().copied().collect()),
        bounds_check_policies: BoundsCheckPolicies {
            index: unchecked,
            buffer: unchecked,
            image_load: unchecked,
            binding_array: unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ray_query_initialization_tracking: false,
        mesh_shader_primitive_indices_clamp: false,
        emit_int_div_checks: false,
        // Bindings as numbered in the source; wgpu would name each one here.
        fake_missing_bindings: true,
        use_storage_input_output_16: false,
        ..spv::Options::default()
    };
    let pipeline = spv::PipelineOptions {
        shader_stage: naga::ShaderStage::Compute,
        entry_point: module.entry_points[0].name.clone(),
    };
    spv::write_vec(&module, &info, &options, Some(&pipeline))
        .map(|words| without_needless_layouts(&words))
        .map_err(|e| e.to_string())
}

/// The module without layouts of arrays and structs that no buffer holds. naga gives every type its
/// layout, which Vulkan forbids for workgroup memory and SPIR-V 1.5 for local variables
/// (gfx-rs/wgpu#7696). Drivers overlook it and wgpu silences the message, but `spirv-val` stops there, and
/// what else is wrong would not be seen. A type that is both in a buffer and in a local variable keeps its
/// layout: the module then says that it is SPIR-V 1.4, which newer targets take too.
fn without_needless_layouts(words: &[u32]) -> Vec<u32> {
    const TYPE_ARRAY: u32 = 28;
    const TYPE_RUNTIME_ARRAY: u32 = 29;
    const TYPE_STRUCT: u32 = 30;
    const TYPE_POINTER: u32 = 32;
    const DECORATE: u32 = 71;
    const MEMBER_DECORATE: u32 = 72;
    const ARRAY_STRIDE: u32 = 6;
    const OFFSET: u32 = 35;
    // Uniform, PushConstant, StorageBuffer.
    const BUFFERS: [u32; 3] = [2, 9, 12];

    let (header, mut rest) = words.split_at(5);
    let mut header = header.to_vec();
    header[1] = header[1].min(0x0001_0400);
    let mut instructions = Vec::new();
    while let Some(&first) = rest.first() {
        let (instruction, after) = rest.split_at(first as usize >> 16);
        instructions.push(instruction);
        rest = after;
    }
    let opcode = |instruction: &[u32]| instruction[0] & 0xffff;
    let mut in_buffers: Vec<u32> = instructions
        .iter()
        .filter(|i| opcode(i) == TYPE_POINTER && BUFFERS.contains(&i[2]))
        .map(|i| i[3])
        .collect();
    let mut next = 0;
    while let Some(&id) = in_buffers.get(next) {
        next += 1;
        for instruction in instructions.iter().filter(|i| i.get(1) == Some(&id)) {
            match opcode(instruction) {
                TYPE_ARRAY | TYPE_RUNTIME_ARRAY => in_buffers.push(instruction[2]),
                TYPE_STRUCT => in_buffers.extend(&instruction[2..]),
                _ => {}
            }
        }
    }
    instructions.retain(|i| match opcode(i) {
        DECORATE => i[2] != ARRAY_STRIDE || in_buffers.contains(&i[1]),
        MEMBER_DECORATE => i[3] != OFFSET || in_buffers.contains(&i[1]),
        _ => true,
    });
    [header, instructions.concat()].concat()
}

/// What `spirv-val` finds wrong with a module; `None` where there is no `spirv-val`.
fn complaint(words: &[u32], environment: &str) -> Option<Result<(), String>> {
    let spawned = Command::new("spirv-val")
        .args(["--target-env", environment, "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Err(error) if error.kind() == ErrorKind::NotFound => return None,
        spawned => spawned.unwrap(),
    };
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    // It reads to the end before it judges; should it have crashed instead, its exit code tells.
    let _ = child.stdin.take().expect("piped").write_all(&bytes);
    let output = child.wait_with_output().unwrap();
    Some(match output.status.success() {
        true => Ok(()),
        false => {
            Err(String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned())
        }
    })
}

fn required(variable: &str) -> bool {
    std::env::var(variable).as_deref() == Ok("1")
}

/// The smallest shader with a cooperative matrix: does this `spirv-val` know them at all?
const COOPERATIVE: &str = "
    enable f16;
    enable wgpu_cooperative_matrix;
    @group(0) @binding(0) var<storage, read_write> c: array<f32>;
    @compute @workgroup_size(32)
    fn cooperative() {
        var sums = coop_mat8x8<f32, C>();
        sums = coopLoadT<coop_mat8x8<f32, C>>(&c[0], 8u);
        coopStoreT(sums, &c[0], 8u);
    }";

#[test]
fn spirv_val_accepts_every_variant() {
    let newest = &TARGETS[TARGETS.len() - 1];
    let probe = translated(COOPERATIVE, newest).expect("the newest target has every feature");
    let Some(knows_matrices) = complaint(&probe, newest.environment) else {
        assert!(
            !required("VECDRIFT_REQUIRE_SPIRV_VAL"),
            "VECDRIFT_REQUIRE_SPIRV_VAL=1: there is no spirv-val"
        );
        eprintln!("**** NO SHADER WENT THROUGH spirv-val: it is not installed (spirv-tools) ****");
        return;
    };
    let mut wrong = Vec::new();
    let mut unknown = BTreeSet::new();
    for shader in variants() {
        let (name, source) = (shader.label(), &shader.source);
        let matrices = source.contains("enable wgpu_cooperative_matrix");
        for target in &TARGETS {
            let words = match translated(source, target) {
                Ok(words) => words,
                // The newest target has every feature, so what it refuses is wrong.
                Err(error) if target.environment == newest.environment => {
                    panic!("{name}: {error}")
                }
                Err(_) => continue,
            };
            if matrices && knows_matrices.is_err() {
                unknown.insert(name.clone());
            } else if let Some(Err(error)) = complaint(&words, target.environment) {
                wrong.push(format!("{name} on {}: {error}", target.environment));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    if !unknown.is_empty() {
        assert!(
            !required("VECDRIFT_REQUIRE_COOPERATIVE_MATRIX"),
            "VECDRIFT_REQUIRE_COOPERATIVE_MATRIX=1: {knows_matrices:?}"
        );
        eprintln!(
            "**** NOT THROUGH spirv-val, which is too old for cooperative matrices: {} ****",
            Vec::from_iter(unknown).join(", ")
        );
    }
}

#[test]
fn spirv_val_refuses_a_broken_module() {
    let source = &variants()[0].source;
    for target in &TARGETS {
        let words = translated(source, target).unwrap();
        let Some(found) = complaint(&words, target.environment) else {
            return;
        };
        assert_eq!(found, Ok(()));
        let unfinished = &words[..words.len() - 1];
        assert!(complaint(unfinished, target.environment).unwrap().is_err());
        // OpCapability Shader, declared as Kernel.
        let mut other = words.clone();
        let declared = words.windows(2).position(|w| w == [2 << 16 | 17, 1]);
        other[declared.expect("a shader declares Shader") + 1] = 6;
        assert!(complaint(&other, target.environment).unwrap().is_err());
        // A version of SPIR-V that the target does not have.
        let newer = [words[0], 0x0001_0700];
        let newer = [&newer[..], &words[2..]].concat();
        assert!(complaint(&newer, target.environment).unwrap().is_err());
    }
}
