//! What a process is confined by before it becomes a database server of ours: an archive is untrusted input, and its SQL must touch
//! nothing of the machine that it is restored on.
//!
//! Files: a root of its own, in which there are the server's package, its libraries and its folder, and nothing else; where that
//! cannot be made, Landlock. Network: a namespace with nothing but a loopback device; where that cannot be made, Landlock, which
//! lets it connect to one port only. The user, when we are root, is another one. Memory is bounded, nothing gains privileges.
//!
//! Not responsible for the processes themselves ([`super::launcher`]), nor for looking whether all this holds
//! ([`super::isolation`]).

use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::StatVfsMountFlags;
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::{Resource, Rlimit};
use serde::{Deserialize, Serialize};

/// What a server may use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confinement {
    /// Its own folder: the only one that it may write to.
    pub folder: PathBuf,
    /// Where its package lies, if not where the system has its own.
    pub prefix: Option<PathBuf>,
    /// The memory that it may take, in bytes.
    pub memory_bytes_max: u64,
}

/// By what something is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// A namespace of the kernel: what is outside is not there.
    Namespace,
    /// Landlock: what is outside is refused.
    Landlock,
    /// The service unit that the launcher runs in.
    Unit,
    /// Nothing.
    Nothing,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confined {
    /// Files outside of its folder and its package.
    pub files: By,
    /// Other machines, and what listens on this one.
    pub network: By,
    /// Why it is no more than that, for people.
    pub notes: Vec<String>,
}

/// Folders of the system that programs and their libraries lie in.
const SYSTEM_FOLDERS: [&str; 7] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32"];
/// Files that a server or its start needs besides.
const SYSTEM_FILES: [&str; 3] = ["/etc/ld.so.cache", "/etc/localtime", "/etc/alternatives"];
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

impl Confinement {
    /// Confines this process, and all that it starts from now on. Must be called before there are other threads. Returns what
    /// came of it, and a listener on the loopback device that confined processes see.
    ///
    /// # Errors
    /// Where the system refuses what it must grant to anybody.
    pub fn enter(&self, is_unit: bool) -> io::Result<(Confined, TcpListener)> {
        rustix::thread::set_no_new_privs(true)?;
        rustix::process::setrlimit(Resource::Core, limit(0))?;
        rustix::process::setrlimit(Resource::Data, limit(self.memory_bytes_max))?;
        let mut notes = Vec::new();
        let spaces = match is_unit {
            true => Err("the unit has made them".to_owned()),
            false => enter_namespaces().and_then(|()| self.enter_root()),
        };
        let (mut files, mut network) = match (&spaces, is_unit) {
            (Ok(()), _) => (By::Namespace, By::Namespace),
            (Err(_), true) => (By::Unit, By::Unit),
            (Err(why), false) => {
                notes.push(why.clone());
                (By::Nothing, By::Nothing)
            }
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        if spaces.is_err() {
            match self.landlock(listener.local_addr()?.port()) {
                Ok(restricts_network) => {
                    files = By::Landlock;
                    if network == By::Nothing && restricts_network {
                        network = By::Landlock;
                    }
                }
                Err(why) => notes.push(why),
            }
        }
        let confined = Confined {
            files,
            network,
            notes,
        };
        Ok((confined, listener))
    }

    /// Makes a root that has what is allowed, and nothing else, and moves into it.
    fn enter_root(&self) -> Result<(), String> {
        self.try_enter_root()
            .map_err(|(what, error)| format!("a root of its own cannot be made: {what}: {error}"))
    }

    fn try_enter_root(&self) -> Result<(), (String, io::Error)> {
        let at = |what: &str| {
            let what = what.to_owned();
            move |error: rustix::io::Errno| (what, error.into())
        };
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private).map_err(at("private mounts"))?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount("tmpfs", "/tmp", "tmpfs", flags, Some(c"mode=755")).map_err(at("tmpfs"))?;
        rustix::process::chdir("/tmp").map_err(at("chdir"))?;
        std::fs::create_dir(OLD_ROOT.trim_start_matches('/'))
            .map_err(|error| (OLD_ROOT.to_owned(), error))?;
        rustix::process::pivot_root(".", OLD_ROOT.trim_start_matches('/')).map_err(at("pivot_root"))?;
        rustix::process::chdir("/").map_err(at("chdir"))?;
        for (path, mode) in self.what_is_seen() {
            show(&path, mode).map_err(|error| (path.display().to_string(), error))?;
        }
        std::fs::create_dir_all("/tmp").map_err(|error| ("/tmp".to_owned(), error))?;
        rustix::mount::unmount(OLD_ROOT, UnmountFlags::DETACH).map_err(at("the old root"))?;
        // Nothing is to be written beside its folder.
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV;
        rustix::mount::mount_remount("/", flags, "").map_err(at("read only"))
    }

    /// What there is in the new root; the old one is at [`OLD_ROOT`].
    fn what_is_seen(&self) -> Vec<(PathBuf, Mode)> {
        let is_there = |path: &Path| old(path).symlink_metadata().is_ok();
        let system = SYSTEM_FOLDERS.iter().chain(&SYSTEM_FILES).map(PathBuf::from);
        let is_system = |prefix: &&PathBuf| SYSTEM_FOLDERS.iter().any(|folder| prefix.starts_with(folder));
        let package = self.prefix.iter().filter(|prefix| !is_system(prefix)).cloned();
        let read = system
            .chain(package)
            .filter(|path| is_there(path))
            .map(|path| (path, Mode::Package));
        let devices = DEVICES.iter().map(|device| (PathBuf::from(device), Mode::Device));
        let own = std::iter::once((self.folder.clone(), Mode::Own));
        read.chain(devices).chain(own).collect()
    }

    /// Allows this process, and what it starts, its folder and the server's package only. Says whether it restricts the network too.
    fn landlock(&self, port: u16) -> Result<bool, String> {
        let fail = |error: &dyn std::fmt::Display| format!("Landlock is not to be had: {error}");
        let abi = ABI::V5;
        let read = AccessFs::from_read(abi);
        let write = AccessFs::from_all(abi) & !AccessFs::Execute & !AccessFs::IoctlDev;
        let beneath = |path: &Path, access| {
            let path = PathFd::new(path).ok()?;
            Some(PathBeneath::new(path, access))
        };
        let folders = SYSTEM_FOLDERS
            .iter()
            .chain(&SYSTEM_FILES)
            .map(Path::new)
            .chain(self.prefix.as_deref());
        let package = folders.filter_map(|path| {
            beneath(
                path,
                if path.is_dir() {
                    read
                } else {
                    AccessFs::ReadFile.into()
                },
            )
        });
        let device = AccessFs::ReadFile | AccessFs::WriteFile;
        let devices = DEVICES.iter().filter_map(|path| beneath(Path::new(path), device));
        let own = beneath(&self.folder, write);
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(abi))
            .and_then(|rules| rules.handle_access(AccessNet::from_all(abi)))
            .and_then(landlock::Ruleset::create)
            .and_then(|rules| {
                rules.add_rules(
                    package
                        .chain(devices)
                        .chain(own)
                        .map(Ok::<_, landlock::RulesetError>),
                )
            })
            .and_then(|rules| rules.add_rule(NetPort::new(port, AccessNet::ConnectTcp)))
            .and_then(landlock::RulesetCreated::restrict_self)
            .map_err(|error| fail(&error))?;
        match status.ruleset {
            RulesetStatus::FullyEnforced => Ok(true),
            RulesetStatus::PartiallyEnforced => Ok(has_landlock_network()),
            RulesetStatus::NotEnforced => Err(fail(&"this kernel does not have it")),
        }
    }
}

/// From the fourth version on: whoever asks for the network alone is refused otherwise.
fn has_landlock_network() -> bool {
    Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessNet::ConnectTcp)
        .and_then(landlock::Ruleset::create)
        .is_ok()
}

fn limit(most: u64) -> Rlimit {
    Rlimit {
        current: Some(most),
        maximum: Some(most),
    }
}

/// Leaves the network, the mounts and the shared memory of others. Whoever is not root needs a user namespace for it.
fn enter_namespaces() -> Result<(), String> {
    let fail = |error: &dyn std::fmt::Display| format!("namespaces are not to be had: {error}");
    let spaces = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWIPC;
    let (user, group) = (rustix::process::geteuid(), rustix::process::getegid());
    if user.is_root() {
        unshare(spaces).map_err(|error| fail(&error))?;
    } else {
        unshare(spaces | CloneFlags::CLONE_NEWUSER).map_err(|error| fail(&error))?;
        let (user, group) = (user.as_raw(), group.as_raw());
        for (file, text) in [
            ("setgroups", "deny".to_owned()),
            ("uid_map", format!("{user} {user} 1")),
            ("gid_map", format!("{group} {group} 1")),
        ] {
            std::fs::write(Path::new("/proc/self").join(file), text).map_err(|error| fail(&error))?;
        }
    }
    loopback_up().map_err(|error| fail(&error))
}

/// Switches the loopback device of a new network namespace on, by the one message of rtnetlink(7) that does it.
fn loopback_up() -> io::Result<()> {
    use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
    const RTM_NEWLINK: u16 = 16;
    const NLMSG_ERROR: u16 = 2;
    const REQUEST_AND_ACK: u16 = 1 | 4;
    const IFF_UP: u32 = 1;
    let socket: OwnedFd = rustix::net::socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE is 0
    )?;
    // nlmsghdr: length, type, flags, sequence, port; ifinfomsg: family, padding, type, index, flags, mask.
    let mut message = Vec::with_capacity(32);
    message.extend(32_u32.to_ne_bytes());
    message.extend(RTM_NEWLINK.to_ne_bytes());
    message.extend(REQUEST_AND_ACK.to_ne_bytes());
    message.extend([1_u32, 0].map(u32::to_ne_bytes).concat());
    message.extend([0_u8; 4]);
    message.extend([1_u32, IFF_UP, IFF_UP].map(u32::to_ne_bytes).concat());
    rustix::net::send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0_u8; 64];
    let (length, _) = rustix::net::recv(&socket, &mut answer[..], RecvFlags::empty())?;
    let code = answer.get(16..20).filter(|_| length >= 20);
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    match code.and_then(|code| code.try_into().ok()).map(i32::from_ne_bytes) {
        Some(0) if kind == NLMSG_ERROR => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(code.saturating_neg())),
        None => Err(io::Error::other("the kernel does not answer")),
    }
}

/// How something is seen in the new root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Read only.
    Package,
    /// Read and written, nothing in it run.
    Own,
    Device,
}

/// Where the old root is while the new one is made.
const OLD_ROOT: &str = "/old";

/// Where a path of the old root is meanwhile.
fn old(path: &Path) -> PathBuf {
    let names = path
        .components()
        .filter(|part| matches!(part, Component::Normal(_)));
    Path::new(OLD_ROOT).join(names.collect::<PathBuf>())
}

/// Shows a path of the old root in the new one, at the same place.
fn show(path: &Path, mode: Mode) -> io::Result<()> {
    let from = old(path);
    path.parent().map(std::fs::create_dir_all).transpose()?;
    let kind = from.symlink_metadata()?.file_type();
    if kind.is_symlink() {
        return std::os::unix::fs::symlink(std::fs::read_link(&from)?, path);
    }
    if kind.is_dir() {
        std::fs::create_dir_all(path)?;
    } else {
        std::fs::File::create(path)?;
    }
    rustix::mount::mount_bind(&from, path)?;
    if mode == Mode::Device {
        return Ok(());
    }
    let own = match mode {
        Mode::Own => MountFlags::NOEXEC,
        _ => MountFlags::RDONLY,
    };
    let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV | own;
    // In a user namespace what was set before must stay so.
    rustix::mount::mount_remount(path, flags | flags_of(path)?, "")?;
    Ok(())
}

fn flags_of(mount: &Path) -> io::Result<MountFlags> {
    let before = rustix::fs::statvfs(mount)?.f_flag;
    let same = [
        (StatVfsMountFlags::RDONLY, MountFlags::RDONLY),
        (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC),
        (StatVfsMountFlags::NOATIME, MountFlags::NOATIME),
        (StatVfsMountFlags::NODIRATIME, MountFlags::NODIRATIME),
        (StatVfsMountFlags::RELATIME, MountFlags::RELATIME),
    ];
    let set = same.into_iter().filter(|(is, _)| before.contains(*is));
    Ok(set.map(|(_, flag)| flag).collect())
}
