//! Limits on the memory of this process, as Linux shows them in files.

use std::path::Path;

/// Bytes that the process may still take by the limits of its control groups and of its address space;
/// `None` where nothing limits it. `root` is `/`, except in tests.
pub fn bytes_left(root: &Path) -> Option<u64> {
    let groups = read(root, "proc/self/cgroup");
    let groups = groups.lines().flat_map(|line| group_left(root, line));
    groups.chain(address_space_left(root)).min()
}

/// A field of `/proc/self/status`, such as `VmHWM`, in bytes.
pub fn status_bytes(root: &Path, field: &str) -> Option<u64> {
    let status = read(root, "proc/self/status");
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes = line.trim_start_matches(':').trim().strip_suffix("kB")?;
    kibibytes.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The content of a file, empty where it cannot be read.
fn read(folder: &Path, file: &str) -> String {
    std::fs::read_to_string(folder.join(file)).unwrap_or_default()
}

/// Files of a control group that tell its limit and what is used, and the line of `memory.stat` of file contents that
/// are kept as long as nobody needs the room.
type Names = [&'static str; 3];

const V1: Names = ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "];
const V2: Names = ["memory.max", "memory.current", "inactive_file "];

/// Bytes that are left in the groups of a line of `/proc/self/cgroup`, `NUMBER:CONTROLLERS:PATH`, and in all
/// groups above them: each limits those within. In a container the path may be that of the host, of which only
/// the root is there.
fn group_left(root: &Path, line: &str) -> Vec<u64> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
        return Vec::new();
    };
    let (mounts, names): (&[&str], _) = match controllers {
        "" => (&["sys/fs/cgroup", "sys/fs/cgroup/unified"], V2),
        names if names.split(',').any(|name| name == "memory") => (&["sys/fs/cgroup/memory"], V1),
        _ => return Vec::new(),
    };
    let groups = Path::new(path.trim_start_matches('/')).ancestors();
    groups
        .flat_map(|group| mounts.iter().map(move |mount| root.join(mount).join(group)))
        .filter_map(|folder| left_in(&folder, names))
        .collect()
}

/// Bytes that are left in a control group.
fn left_in(folder: &Path, [limit, used, cache]: Names) -> Option<u64> {
    let number = |text: &str| text.trim().parse::<u64>().ok();
    // "max", where there is no limit, is no number
    let limit = number(&read(folder, limit))?;
    let used = number(&read(folder, used)).unwrap_or(0);
    let stat = read(folder, "memory.stat");
    let cache = stat.lines().find_map(|line| number(line.strip_prefix(cache)?)).unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(cache)))
}

/// Bytes that `ulimit -v` leaves.
fn address_space_left(root: &Path) -> Option<u64> {
    let limits = read(root, "proc/self/limits");
    let mut lines = limits.lines();
    let limit = lines.find_map(|line| line.strip_prefix("Max address space"))?;
    let limit: u64 = limit.split_whitespace().next()?.parse().ok()?;
    Some(limit.saturating_sub(status_bytes(root, "VmSize").unwrap_or(0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A folder with these files.
    fn root(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        root
    }

    fn left(files: &[(&str, &str)]) -> Option<u64> {
        bytes_left(root(files).path())
    }

    #[test]
    fn the_narrowest_group_on_the_path_counts() {
        let gib = |n: u64| (n * GIB).to_string();
        let files = [
            ("proc/self/cgroup", "0::/user.slice/job/step\n"),
            ("sys/fs/cgroup/memory.max", "max\n"),
            ("sys/fs/cgroup/user.slice/memory.max", &gib(8)),
            ("sys/fs/cgroup/user.slice/memory.current", &gib(3)),
            ("sys/fs/cgroup/user.slice/job/memory.max", &gib(5)),
            ("sys/fs/cgroup/user.slice/job/memory.current", &gib(2)),
            (
                "sys/fs/cgroup/user.slice/job/memory.stat",
                "anon 5\ninactive_file 1073741824\nactive_file 7\n",
            ),
            ("sys/fs/cgroup/user.slice/job/step/memory.max", "max\n"),
        ];
        assert_eq!(left(&files), Some(4 * GIB));
        assert_eq!(left(&files[..4]), Some(5 * GIB));
        assert_eq!(left(&files[..3]), Some(8 * GIB));
        assert_eq!(left(&files[..2]), None);
        assert_eq!(left(&[]), None);
    }

    #[test]
    fn the_first_version_of_control_groups() {
        let files = [
            (
                "proc/self/cgroup",
                "12:cpu,cpuacct:/x\n4:hugetlb,memory:/docker/0123:a\n1:name=systemd:/x\n0::/x\n",
            ),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/docker/0123:a/memory.limit_in_bytes", "4000\n"),
            ("sys/fs/cgroup/memory/docker/0123:a/memory.usage_in_bytes", "3000\n"),
            (
                "sys/fs/cgroup/memory/docker/0123:a/memory.stat",
                "inactive_file 1\ntotal_inactive_file 500\n",
            ),
        ];
        assert_eq!(left(&files), Some(1500));
        // within a container the root is its group
        let inside = [files[0], ("sys/fs/cgroup/memory/memory.limit_in_bytes", "700\n")];
        assert_eq!(left(&inside), Some(700));
    }

    #[test]
    fn more_is_used_than_allowed_and_what_is_no_number() {
        let used = [
            ("proc/self/cgroup", "0::/\n"),
            ("sys/fs/cgroup/memory.max", "10"),
            ("sys/fs/cgroup/memory.current", "11"),
        ];
        assert_eq!(left(&used), Some(0));
        for line in ["", "0", "0:", "::", "x:memory", "0::/../../.."] {
            assert_eq!(left(&[("proc/self/cgroup", line)]), None, "{line}");
        }
    }

    #[test]
    fn the_address_space() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max address space         8192000              unlimited            bytes     \n";
        let files = [
            ("proc/self/limits", limits),
            ("proc/self/status", "VmPeak:\t 9 kB\nVmSize:\t    1000 kB\n"),
        ];
        assert_eq!(left(&files), Some(8_192_000 - 1_024_000));
        let unlimited = limits.replace("8192000  ", "unlimited");
        assert_eq!(left(&[("proc/self/limits", &unlimited)]), None);
    }
}
