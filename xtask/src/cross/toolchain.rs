//! Which toolchain can build for a target.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fmt, fs};

use super::targets::Target;

/// A Rust toolchain.
#[derive(Clone)]
pub(super) enum Toolchain {
    /// The one that builds this program.
    Active,
    /// Another one that rustup has.
    Rustup(String),
    /// One that tools/cross/install.sh made where there is no rustup.
    Folder(PathBuf),
}

/// Where tools/cross/install.sh puts things: $RUST_CROSS, by default /opt/rust-cross.
pub(super) fn prefix() -> PathBuf {
    env::var_os("RUST_CROSS").map_or_else(|| "/opt/rust-cross".into(), PathBuf::from)
}

/// Where cargo builds for other targets.
pub(super) fn target_dir() -> PathBuf {
    crate::root().join("target/cross")
}

impl Toolchain {
    /// The first toolchain that has the standard library of `target`, the active one before all others. Nothing is
    /// installed or asked of a server.
    pub(super) fn find(target: Target) -> Option<Self> {
        Self::installed().into_iter().find(|toolchain| toolchain.has(target))
    }

    fn installed() -> Vec<Self> {
        let mut all = vec![Self::Active];
        let listed = Command::new("rustup").args(["toolchain", "list", "--quiet"]).output();
        let listed = listed.ok().filter(|o| o.status.success()).map(|o| o.stdout).unwrap_or_default();
        let names = String::from_utf8_lossy(&listed).into_owned();
        all.extend(
            names.lines().filter_map(|l| l.split_whitespace().next()).map(|n| Self::Rustup(n.to_owned())),
        );
        all.push(Self::Folder(prefix()));
        all
    }

    /// Whether the library is where rustc looks for it: it names the folder even when that is not there.
    fn has(&self, target: Target) -> bool {
        let asked =
            self.command("rustc").args(["--print", "target-libdir", "--target", target.triple()]).output();
        let Ok(output) = asked else { return false };
        let folder = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let holds_core = |entries: fs::ReadDir| {
            entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
        };
        output.status.success() && fs::read_dir(folder).is_ok_and(holds_core)
    }

    /// `rustc` or `cargo` of this toolchain, in the workspace's root.
    pub(super) fn command(&self, program: &str) -> Command {
        let mut command = match self {
            Self::Active | Self::Rustup(_) => Command::new(program),
            Self::Folder(folder) => Command::new(folder.join("bin").join(program)),
        };
        command.current_dir(crate::root());
        match self {
            Self::Active => {}
            Self::Rustup(name) => {
                command.env("RUSTUP_TOOLCHAIN", name);
            }
            Self::Folder(folder) => {
                let path = env::var_os("PATH").unwrap_or_default();
                let folders = [folder.join("bin")].into_iter().chain(env::split_paths(&path));
                command.env("PATH", env::join_paths(folders).unwrap_or(path));
            }
        }
        // Those of the cargo that runs this program name its own compiler.
        command.env_remove("RUSTC").env_remove("CARGO").env_remove("LD_LIBRARY_PATH");
        command
    }
}

impl fmt::Display for Toolchain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Active => f.write_str("the active toolchain"),
            Self::Rustup(name) => write!(f, "toolchain {name}"),
            Self::Folder(folder) => write!(f, "the toolchain in {}", folder.display()),
        }
    }
}

/// The first program of these names on the PATH, or among the tools of tools/cross/install.sh.
pub(crate) fn which(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    folders.insert(0, prefix().join("tools/bin"));
    let found = |name: &str| folders.iter().map(|f| f.join(name)).find(|p: &PathBuf| Path::is_file(p));
    names.iter().find_map(|name| found(name))
}
