//! The shaders without a GPU: valid, translatable to every backend, and as the Rust side believes them
//! to be. Every comparison proves on a changed source that it can fail.

use std::panic::catch_unwind;

use naga::valid::{Capabilities, ModuleInfo, ValidationFlags, Validator};
use naga::{AddressSpace, Module, StorageAccess, TypeInner};
use vecdrift::engine::gpu::shaders::{Access, Shader, WORKGROUP, variants};

fn validated(source: &str) -> Result<(Module, ModuleInfo), String> {
    let module = naga::front::wgsl::parse_str(source).map_err(|e| e.emit_to_string(source))?;
    // What a device without optional features accepts, but for what a source uses by name.
    let mut capabilities = Capabilities::empty();
    if source.contains("enable wgpu_cooperative_matrix;") {
        capabilities |= Capabilities::COOPERATIVE_MATRIX | Capabilities::SHADER_FLOAT16;
    }
    if source.contains("unpack2x16float") {
        capabilities |= Capabilities::SHADER_FLOAT16_IN_FLOAT32;
    }
    let info = Validator::new(ValidationFlags::all(), capabilities)
        .validate(&module)
        .map_err(|e| e.emit_to_string(source))?;
    Ok((module, info))
}

/// What differs between a source and its table row, in words.
fn mismatches(shader: &Shader, source: &str) -> Vec<String> {
    let (module, _) = match validated(source) {
        Ok(valid) => valid,
        Err(error) => return vec![error],
    };
    let mut wrong = Vec::new();
    match module.entry_points.as_slice() {
        [entry] => {
            if entry.name != shader.kernel.name {
                wrong.push(format!("entry point {}", entry.name));
            }
            if entry.workgroup_size != [WORKGROUP, 1, 1] {
                wrong.push(format!("workgroup size {:?}", entry.workgroup_size));
            }
        }
        entries => wrong.push(format!("{} entry points", entries.len())),
    }
    let mut bound = 0;
    let mut workgroup_storage = 0;
    for (_, variable) in module.global_variables.iter() {
        if variable.space == AddressSpace::WorkGroup {
            workgroup_storage += module.types[variable.ty].inner.size(module.to_ctx());
        }
        let Some(binding) = variable.binding else {
            continue;
        };
        bound += 1;
        let access = match variable.space {
            AddressSpace::Uniform => Some(Access::Uniform),
            AddressSpace::Storage { access } if access == StorageAccess::LOAD => Some(Access::Read),
            AddressSpace::Storage { .. } => Some(Access::Write),
            _ => None,
        };
        let found = (variable.name.as_deref().unwrap_or(""), access);
        let expected = shader.kernel.bindings.get(binding.binding as usize);
        if binding.group != 0 || expected.map(|&(name, access)| (name, Some(access))) != Some(found)
        {
            wrong.push(format!("binding {} is {found:?}", binding.binding));
        }
        if let TypeInner::Struct { members, span } = &module.types[variable.ty].inner {
            let found: Vec<_> = members
                .iter()
                .map(|member| {
                    let size = module.types[member.ty].inner.size(module.to_ctx());
                    let name = member.name.as_deref().unwrap_or("");
                    (name, member.offset as usize, size as usize)
                })
                .collect();
            let expected: Vec<_> = shader
                .kernel
                .params
                .iter()
                .map(|f| (f.name, f.offset, f.size))
                .collect();
            if found != expected {
                wrong.push(format!("members {found:?}, expected {expected:?}"));
            }
            if *span as usize != shader.kernel.params_size {
                wrong.push(format!("{span} bytes of parameters"));
            }
        }
    }
    if bound != shader.kernel.bindings.len() {
        wrong.push(format!("{bound} bindings"));
    }
    if workgroup_storage != shader.workgroup_storage {
        wrong.push(format!("{workgroup_storage} bytes of workgroup memory"));
    }
    wrong
}

#[test]
fn shaders_match_their_table_rows() {
    for shader in &variants() {
        let wrong = mismatches(shader, &shader.source);
        assert!(wrong.is_empty(), "{}: {}", shader.label(), wrong.join("\n"));
    }
}

#[test]
fn a_changed_source_is_noticed() {
    for shader in &variants() {
        let entry = format!("fn {}(", shader.kernel.name);
        let last = shader.kernel.bindings.len() - 1;
        let start = shader.source.find("struct Params {").unwrap();
        let members = shader.source[start..].split_inclusive('}').next().unwrap();
        let changes: [(&str, String); 6] = [
            (&entry, "fn other(".into()),
            ("@workgroup_size(256)", "@workgroup_size(64)".into()),
            ("struct Params {", "struct Params {\n    early: u32,".into()),
            (members, members.replacen(": u32,", ": vec4<f32>,", 1)),
            (
                &format!("@binding({last})"),
                format!("@binding({})", last + 1),
            ),
            ("var<storage, read>", "var<storage, read_write>".into()),
        ];
        for (from, to) in changes {
            let changed = shader.source.replacen(from, &to, 1);
            assert_ne!(changed, shader.source, "{}: no {from}", shader.kernel.name);
            assert!(
                !mismatches(shader, &changed).is_empty(),
                "{}: {from} -> {to} was not noticed",
                shader.kernel.name
            );
        }
    }
    // Fields of one type that changed places move no offset: their names tell.
    let all = variants();
    let nearest = all.iter().find(|s| s.kernel.name == "nearest").unwrap();
    let swapped = nearest.source.replacen(
        "x_rows: u32,\n    y_rows: u32,",
        "y_rows: u32,\n    x_rows: u32,",
        1,
    );
    assert_ne!(swapped, nearest.source);
    assert!(!mismatches(nearest, &swapped).is_empty());
    let greedy = nearest
        .source
        .replacen("const LANES: u32 = 256u", "const LANES: u32 = 768u", 1);
    assert_ne!(greedy, nearest.source);
    assert!(!mismatches(nearest, &greedy).is_empty());
}

/// Translates as wgpu does for trusted shaders; the name of each backend with what went wrong.
fn translations(module: &Module, info: &ModuleInfo) -> Vec<(&'static str, Result<(), String>)> {
    use naga::back::{hlsl, msl, spv};
    let spirv = || {
        let options = spv::Options {
            zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
            force_loop_bounding: false,
            ..spv::Options::default()
        };
        spv::write_vec(module, info, &options, None)
            .map(drop)
            .map_err(|e| e.to_string())
    };
    let metal = || {
        let options = msl::Options {
            fake_missing_bindings: true,
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: false,
            ..msl::Options::default()
        };
        msl::write_string(module, info, &options, &msl::PipelineOptions::default())
            .map(drop)
            .map_err(|e| e.to_string())
    };
    let hlsl = || {
        let options = hlsl::Options {
            shader_model: hlsl::ShaderModel::V6_0,
            zero_initialize_workgroup_memory: false,
            force_loop_bounding: false,
            ..hlsl::Options::default()
        };
        let pipeline = hlsl::PipelineOptions::default();
        let mut text = String::new();
        hlsl::Writer::new(&mut text, &options, &pipeline)
            .write(module, info, None)
            .map(drop)
            .map_err(|e| e.to_string())
    };
    vec![("spirv", spirv()), ("metal", metal()), ("hlsl", hlsl())]
}

#[test]
fn shaders_translate_to_every_backend() {
    for shader in &variants() {
        let (module, info) = validated(&shader.source).unwrap();
        for (backend, result) in translations(&module, &info) {
            // Cooperative matrices are used on Vulkan only.
            if shader.core.is_some_and(|core| core.is_cooperative()) && backend != "spirv" {
                continue;
            }
            assert_eq!(result, Ok(()), "{} to {backend}", shader.kernel.name);
        }
    }
    // A module without its types' info, as a broken shader would give, translates nowhere.
    let (module, _) = validated(&variants()[0].source).unwrap();
    let (_, other) = validated("@compute @workgroup_size(1) fn f() {}").unwrap();
    assert!(catch_unwind(|| translations(&module, &other)).is_err());
    assert!(validated("fn f() -> u32 { return 1.5; }").is_err());
}
