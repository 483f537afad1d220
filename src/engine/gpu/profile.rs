//! What is known of an adapter's cores, kept between runs.
//!
//! A profile belongs to one adapter, driver and set of shaders; anything else, or a file that cannot be
//! read, is measured again. It decides speed, never a result.

use std::collections::HashMap;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

use super::cores::{self, Choice, CoreReport};
use super::{GpuBackend, adapters, shaders};
use crate::engine::DeviceChoice;
use crate::engine::threads::Threads;
use crate::error::Result;

/// The cores of an adapter as they were when it was first used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DeviceProfile {
    /// The adapter.
    pub adapter: String,
    /// Driver and its version.
    pub driver: String,
    /// Hash of the shaders that were measured.
    pub shaders: String,
    /// The cores, in the order of their race.
    pub cores: Vec<CoreReport>,
}

/// A profile, and where it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct KnownProfile {
    /// The file; `None` where nothing could be kept.
    pub file: Option<String>,
    /// What is known.
    pub profile: DeviceProfile,
}

/// Names one core for everything that it can do, whatever its grade and speed. For tests.
const FORCED_CORE: &str = "VECDRIFT_GPU_CORE";
/// Where profiles are kept, instead of the user's cache folder; empty: nowhere.
const FOLDER: &str = "VECDRIFT_CACHE_DIR";

/// Profiles of this process, so that nothing is measured twice where nothing can be kept.
static KNOWN: Mutex<Option<HashMap<String, DeviceProfile>>> = Mutex::new(None);

/// The core of each operation on an adapter.
pub(super) fn choice(backend: &GpuBackend, adapter: &wgpu::Adapter) -> Result<Choice> {
    let candidates = cores::candidates(adapter);
    let limits = adapter.limits();
    if let Ok(name) = std::env::var(FORCED_CORE) {
        let core = cores::named(&candidates, &name)
            .map_err(|error| error.hint(format!("{FORCED_CORE} names a core")))?;
        return Ok(Choice::only(core, &limits));
    }
    let reports = known(backend, adapter, false).profile.cores;
    Ok(Choice::fastest(&candidates, &reports, &limits))
}

/// What is known of the adapter that a choice means; `anew`: measured now.
///
/// # Errors
/// No such adapter, or it cannot be opened.
pub fn profile(choice: &DeviceChoice, anew: bool) -> Result<KnownProfile> {
    let adapter = adapters::choose(choice)?;
    let backend = GpuBackend::bare(&adapter, adapter.limits(), &Threads::default())?;
    Ok(known(&backend, &adapter, anew))
}

/// What is known of an adapter: remembered, kept in the cache folder, or measured now.
fn known(backend: &GpuBackend, adapter: &wgpu::Adapter, anew: bool) -> KnownProfile {
    let info = adapter.get_info();
    let mut wanted = DeviceProfile {
        adapter: format!("{} ({})", info.name, info.backend),
        driver: format!("{} {}", info.driver, info.driver_info),
        shaders: shaders_hash(),
        cores: Vec::new(),
    };
    let key = format!("{}|{}|{}", wanted.adapter, wanted.driver, wanted.shaders);
    // Held while measuring, so that two engines that open at once do not disturb each other's race.
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let known = known.get_or_insert_default();
    let file = folder().map(|folder| folder.join(file_name(&wanted)));
    let remembered = || known.get(&key).cloned();
    let kept = || file.as_ref().and_then(|file| read(file, &wanted));
    let found = if anew {
        None
    } else {
        remembered().or_else(kept)
    };
    let profile = found.unwrap_or_else(|| {
        wanted.cores = cores::trial(backend, &cores::candidates(adapter));
        if let Some(file) = &file {
            // Where nothing can be kept, the next run measures again: slower, and no less right.
            let _ = write(file, &wanted);
        }
        wanted
    });
    known.insert(key, profile.clone());
    KnownProfile {
        file: file
            .filter(|file| file.exists())
            .map(|file| file.display().to_string()),
        profile,
    }
}

fn file_name(profile: &DeviceProfile) -> String {
    format!("device-{:016x}.json", xxh3_64(profile.adapter.as_bytes()))
}

/// Hash of all that a device compiles.
fn shaders_hash() -> String {
    let all: String = shaders::variants().into_iter().map(|s| s.source).collect();
    format!("{:016x}", xxh3_64(all.as_bytes()))
}

/// The user's cache folder for this program.
fn folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    if let Some(folder) = std::env::var_os(FOLDER) {
        return Some(PathBuf::from(folder)).filter(|folder| !folder.as_os_str().is_empty());
    }
    let home = || variable("HOME").map(PathBuf::from);
    let caches = if cfg!(windows) {
        variable("LOCALAPPDATA").map(PathBuf::from)
    } else if cfg!(target_os = "macos") {
        home().map(|home| home.join("Library/Caches"))
    } else {
        variable("XDG_CACHE_HOME")
            .map(PathBuf::from)
            .or_else(|| home().map(|home| home.join(".cache")))
    };
    caches.map(|caches| caches.join("vecdrift"))
}

/// The profile in a file, if it is whole and about the same adapter, driver and shaders.
fn read(file: &PathBuf, wanted: &DeviceProfile) -> Option<DeviceProfile> {
    let profile: DeviceProfile = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let same = |of: fn(&DeviceProfile) -> &String| of(&profile) == of(wanted);
    (same(|p| &p.adapter) && same(|p| &p.driver) && same(|p| &p.shaders)).then_some(profile)
}

fn write(file: &PathBuf, profile: &DeviceProfile) -> std::io::Result<()> {
    let folder = file.parent().ok_or(std::io::ErrorKind::NotFound)?;
    fs::create_dir_all(folder)?;
    let mut temporary = tempfile::NamedTempFile::new_in(folder)?;
    temporary.write_all(&serde_json::to_vec_pretty(profile)?)?;
    temporary.persist(file)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_whole_and_for_its_own_adapter_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let profile = DeviceProfile {
            adapter: "Card (vulkan)".to_owned(),
            driver: "driver 1.2".to_owned(),
            shaders: shaders_hash(),
            cores: vec![CoreReport {
                core: "f32-64".to_owned(),
                passed: true,
                max_error: Some(1e-7),
                bound: 2e-6,
                tflops: Some(1.25),
                failure: None,
            }],
        };
        let file = folder.path().join("deeper").join(file_name(&profile));
        assert_eq!(read(&file, &profile), None);
        write(&file, &profile).unwrap();
        let wanted = DeviceProfile {
            cores: Vec::new(),
            ..profile.clone()
        };
        assert_eq!(read(&file, &wanted).as_ref(), Some(&profile));
        for other in [
            DeviceProfile {
                driver: "driver 1.3".to_owned(),
                ..wanted.clone()
            },
            DeviceProfile {
                shaders: "0".to_owned(),
                ..wanted.clone()
            },
            DeviceProfile {
                adapter: "Other".to_owned(),
                ..wanted.clone()
            },
        ] {
            assert_eq!(read(&file, &other), None);
        }
        let whole = fs::read(&file).unwrap();
        for corrupt in [&whole[..whole.len() / 2], b"", b"\xff\xff", b"{}"] {
            fs::write(&file, corrupt).unwrap();
            assert_eq!(read(&file, &wanted), None);
        }
        write(&file, &profile).unwrap();
        assert_eq!(read(&file, &wanted), Some(profile));
    }
}
