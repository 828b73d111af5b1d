//! Where the memory of a program that trains comes from.

/// Asks the system's allocator to keep freed memory for the next allocation instead of handing it back,
/// for the rest of the process.
///
/// A training step frees and allocates the same large buffers again and again; fresh pages from the
/// system cost more time than filling them. The peak of the memory in use stays what it is. Only glibc
/// is known to need the advice; elsewhere nothing happens. For programs, not for libraries: it concerns
/// the whole process.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `mallopt` takes two integers, may be called at any time, and only changes how the
    // allocator obtains and returns memory.
    unsafe {
        libc::mallopt(libc::M_MMAP_MAX, 0);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
    }
}
