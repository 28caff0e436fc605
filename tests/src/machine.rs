//! A machine with a systemd of its own, in namespaces of this one: what it changes of this machine's files is gone with it.
//!
//! Not a virtual machine: the kernel is this one's, and what systemd asks of it (namespaces, system call filters, users) is real. Bounds
//! of memory are not: those need a cgroup hierarchy that a machine may not have to itself.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use crate::process::{Process, run, short_folder, wait_until};

/// Mounts a copy-on-write root, the devices and `/proc` that systemd needs, and becomes systemd. Arguments: a folder, and folders that are shared.
const BOOT: &str = r#"set -e
folder=$1; shift
mount --make-rprivate /
mount -t tmpfs tmpfs "$folder"; mkdir "$folder/upper" "$folder/work" "$folder/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$folder/upper,workdir=$folder/work" "$folder/root"
n=0; for shared in "$@"; do n=$((n + 1)); mkdir "$folder/$n"; mount --rbind "$shared" "$folder/$n"; done
cd "$folder/root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do touch dev/$device; mount --bind /dev/$device dev/$device; done
mkdir dev/pts dev/shm; mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts; ln -s pts/ptmx dev/ptmx; ln -s /proc/self/fd dev/fd
mount -t tmpfs tmpfs dev/shm; mount -t tmpfs -o mode=755 tmpfs run; mount -t tmpfs -o mode=1777 tmpfs tmp
n=0; for shared in "$@"; do n=$((n + 1)); mkdir -p ".$shared"; mount --move "$folder/$n" ".$shared"; done
: > etc/machine-id
mkdir -p old; pivot_root . old; umount -l /old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --system --unit=basic.target"#;

/// See the module. It is switched off when this is dropped.
#[derive(Debug)]
pub struct Machine {
    process: Process,
    folder: tempfile::TempDir,
}

impl Machine {
    /// Boots one that shares these folders with this machine, at the same places. Panics where that cannot be: it needs root.
    pub fn boot(shared: &[&Path]) -> Machine {
        let folder = short_folder();
        let log = folder.path().join("boot.log");
        let place = folder.path().join("machine");
        std::fs::create_dir(&place).unwrap_or_else(|error| panic!("{}: {error}", place.display()));
        let mut command = Command::new("unshare");
        command
            .args([
                "--pid",
                "--fork",
                "--kill-child",
                "--mount",
                "--net",
                "--uts",
                "--ipc",
                "--cgroup",
            ])
            .args(["bash", "-c", BOOT, "boot"])
            .arg(&place)
            .args(shared);
        let mut machine = Machine {
            process: Process::start("systemd", &mut command, &log),
            folder,
        };
        let id = machine.process.id();
        machine
            .process
            .wait_ready(Duration::from_secs(60), || first_child(id).is_some());
        wait_until("systemd runs", Duration::from_secs(60), || {
            let told = machine.try_run(&["systemctl", "is-system-running"]).stdout;
            ["running\n", "degraded\n"].contains(&&*String::from_utf8_lossy(&told))
        });
        machine
    }

    /// What starts a command on it, as root: for [`crate::holdfast::Holdfast::through`].
    pub fn starter(&self, more: &[&str]) -> Vec<String> {
        let systemd = first_child(self.process.id());
        let systemd =
            systemd.unwrap_or_else(|| panic!("the machine is off: {}", self.folder.path().display()));
        let starter = [
            "nsenter", "-t", &systemd, "-m", "-p", "-n", "-u", "-i", "-C", "--wdns=/", "--",
        ];
        starter.iter().chain(more).map(|&word| word.to_owned()).collect()
    }

    /// A command that runs on it, as root.
    pub fn command(&self, command: &[&str]) -> Command {
        let words = self.starter(command);
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]);
        command
    }

    /// Runs one to its end, which must be a success; what it printed.
    #[track_caller]
    pub fn run(&self, command: &[&str]) -> String {
        run(&mut self.command(command))
    }

    /// Runs a script of the shell, which ends at the first failure.
    #[track_caller]
    pub fn script(&self, script: &str) -> String {
        self.run(&["bash", "-euo", "pipefail", "-c", script])
    }

    /// Runs one to its end, whatever that is.
    #[track_caller]
    pub fn try_run(&self, command: &[&str]) -> Output {
        let output = self.command(command).output();
        output.unwrap_or_else(|error| panic!("{command:?}: {error}"))
    }
}

/// The process that `unshare` forks is the machine's first.
fn first_child(unshare: u32) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let is_child = |id: &String| {
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let parent = stat
            .rsplit_once(") ")
            .and_then(|(_, rest)| rest.split(' ').nth(1)?.parse().ok());
        parent == Some(unshare)
    };
    processes
        .filter_map(|process| process.file_name().into_string().ok())
        .find(is_child)
}
