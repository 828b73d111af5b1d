//! Blocks in the tile registers of AMX: a tile of C is 16 × 16 `f32`, a tile of A 16 rows of 16 words
//! (pairs of bf16), a tile of B 16 depths of 16 words.
//!
//! The tile intrinsics of Rust are unstable; the instructions themselves assemble.

use std::arch::asm;
use std::sync::OnceLock;

use pulp::x86::V4;

use super::super::instructions::Instructions;
use super::{BlockRows, Format, MicroKernel, Term, Tuning, check_block, x86};

/// AMX tiles of bf16: 2 × 2 tiles of C.
#[derive(Debug, Clone, Copy)]
pub struct Amx(V4);

impl Amx {
    /// The proof that the processor has it and the system grants it.
    pub fn new() -> Option<Self> {
        V4::try_new().filter(|_| has_amx()).map(Self)
    }
}

/// `true` if the processor has AMX tiles of bf16 (and AVX-512 for what surrounds them) and the system
/// lets this process use them; asked once.
pub fn has_amx() -> bool {
    static GRANTED: OnceLock<bool> = OnceLock::new();
    *GRANTED.get_or_init(|| V4::is_available() && has_tiles() && request_tiles())
}

/// CPUID leaf 7: EDX bit 22 is AMX-BF16, bit 24 AMX-TILE; XCR0 bits 17 and 18: the system saves tiles.
fn has_tiles() -> bool {
    use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};
    // CPUID leaf 1, ECX bit 27: XGETBV may be executed.
    const OSXSAVE: u32 = 1 << 27;
    const TILES: u32 = 1 << 22 | 1 << 24;
    const STATE: u64 = 1 << 17 | 1 << 18;
    #[target_feature(enable = "xsave")]
    fn saved_state() -> u64 {
        // SAFETY: called only after CPUID said that XGETBV may be executed.
        unsafe { _xgetbv(0) }
    }
    #[allow(unused_unsafe)] // safe in newer toolchains
    // SAFETY: every x86-64 processor has CPUID; leaf 7 is asked for only where it exists, XGETBV only
    // where the system enabled it.
    unsafe {
        __cpuid(0).eax >= 7
            && __cpuid(1).ecx & OSXSAVE != 0
            && __cpuid_count(7, 0).edx & TILES == TILES
            && saved_state() & STATE == STATE
    }
}

/// Asks Linux for the use of tile data: `arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)`.
#[cfg(target_os = "linux")]
fn request_tiles() -> bool {
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: u64 = 0x1023;
    const XFEATURE_XTILEDATA: u64 = 18;
    let result: i64;
    // SAFETY: this system call takes two integers and touches no memory of ours; the kernel
    // overwrites rcx and r11.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") ARCH_PRCTL => result,
            in("rdi") ARCH_REQ_XCOMP_PERM,
            in("rsi") XFEATURE_XTILEDATA,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    result == 0
}

#[cfg(not(target_os = "linux"))]
fn request_tiles() -> bool {
    false
}

/// The operand of LDTILECFG: all eight tiles 16 rows of 64 bytes.
#[repr(C, align(64))]
struct TileConfig {
    palette: u8,
    start_row: u8,
    reserved: [u8; 14],
    row_bytes: [u16; 16],
    rows: [u8; 16],
}

static CONFIG: TileConfig = TileConfig {
    palette: 1,
    start_row: 0,
    reserved: [0; 14],
    row_bytes: [64, 64, 64, 64, 64, 64, 64, 64, 0, 0, 0, 0, 0, 0, 0, 0],
    rows: [16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0],
};

/// Gives this thread its tile configuration.
fn configure(_: Amx) {
    // SAFETY: the argument proves AMX; the operand is 64 readable bytes in the layout of palette 1, whose
    // tiles have at most 16 rows of 64 bytes. Tiles are this thread's own, and nobody expects to find in
    // them what was there before.
    unsafe {
        asm!("ldtilecfg [{}]", in(reg) &raw const CONFIG, options(nostack, readonly));
    }
}

impl Instructions for Amx {
    #[inline(always)]
    fn vectorized<R>(self, work: impl FnOnce() -> R) -> R {
        self.0.vectorized(work)
    }
}

impl MicroKernel for Amx {
    const ROWS: usize = 32;
    const COLS: usize = 32;
    const STEP: usize = 16;
    const FORMAT: Format = Format::Pairs;
    const TUNING: Tuning = Tuning {
        // all terms at once: a block of C is worth more in the tiles than a panel in the first-level cache
        depth: usize::MAX / 2,
        piece: 128,
        channels: 64,
        rows_first: true,
        turn: 64,
        packing: 1024,
    };

    fn block(
        self,
        (c, c_stride): (&mut [f32], usize),
        a: BlockRows,
        b: &[u32],
        terms: &[Term],
        (rows, half): (usize, bool),
        add: bool,
    ) {
        check_block::<Self>(rows, (c.len(), c_stride), &a, b.len(), terms);
        let first = &a.words[a.groups[0]..];
        assert!(!terms.is_empty(), "product: no terms");
        // SAFETY: `self` proves AMX and `begin` configured this thread; `check_block` keeps in the slices
        // 32 rows of 32 numbers of C, and for each term 32 rows of `depth` words of A and `depth`
        // times 32 words of B, `depth` being a multiple of 16, a step of the loop.
        unsafe {
            let block = if half { half_block } else { whole_block };
            block(
                c.as_mut_ptr(),
                4 * c_stride,
                first.as_ptr(),
                4 * a.stride,
                b.as_ptr(),
                terms,
                add,
            );
        }
    }

    fn begin(self) {
        // each time: other code on this thread may have given up or changed the configuration since
        configure(self);
    }

    fn transpose(
        self,
        from: &[u32],
        stride: usize,
        sizes: (usize, usize),
        to: &mut [u32],
        to_stride: usize,
    ) {
        // SAFETY: `self` proves AVX-512 too, and with it AVX2.
        unsafe { x86::transpose(from, stride, sizes, to, to_stride) }
    }
}

/// `times` products of a step of a block, of zeros, without loads: the pace of the tile unit.
pub fn multiply_tiles(amx: Amx, times: usize) {
    configure(amx);
    // SAFETY: AMX is there and this thread is configured; no memory is touched and the tiles are
    // declared as clobbered.
    unsafe {
        asm!(
            "tilezero tmm0", "tilezero tmm1", "tilezero tmm2", "tilezero tmm3",
            "tilezero tmm4", "tilezero tmm5", "tilezero tmm6", "tilezero tmm7",
            "2:",
            "tdpbf16ps tmm0, tmm4, tmm6",
            "tdpbf16ps tmm1, tmm4, tmm7",
            "tdpbf16ps tmm2, tmm5, tmm6",
            "tdpbf16ps tmm3, tmm5, tmm7",
            "sub {times}, 1",
            "ja 2b",
            times = inout(reg) times => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nomem, nostack),
        );
    }
}

/// The block of C is loaded, or begins with zeros. What follows `$right` concerns the right half of the block.
macro_rules! begin_block {
    ($right:literal) => {
        concat!(
            // {low} points to the lower half of C's block here, of A's rows in the loop
            "mov {low}, {c_stride}\n",
            "shl {low}, 4\n",
            "add {low}, {c}\n",
            // {depth} says at first whether to add
            "test {depth}, {depth}\n",
            "jz 2f\n",
            "tileloadd tmm0, [{c} + {c_stride}]\n",
            $right,
            "tileloadd tmm1, [{c} + {c_stride} + 64]\n",
            "tileloadd tmm2, [{low} + {c_stride}]\n",
            $right,
            "tileloadd tmm3, [{low} + {c_stride} + 64]\n",
            "jmp 3f\n",
            "2:\n",
            "tilezero tmm0\n",
            $right,
            "tilezero tmm1\n",
            "tilezero tmm2\n",
            $right,
            "tilezero tmm3\n",
        )
    };
}

/// A step of a term: 16 words of depth, 32 numbers.
macro_rules! multiply_step {
    ($right:literal) => {
        concat!(
            "tileloadd tmm4, [{a_now} + {a_stride}]\n",
            "tileloadd tmm6, [{b_now} + {b_stride}]\n",
            "tdpbf16ps tmm0, tmm4, tmm6\n",
            $right,
            "tileloadd tmm7, [{b_now} + {b_stride} + 64]\n",
            $right,
            "tdpbf16ps tmm1, tmm4, tmm7\n",
            "tileloadd tmm5, [{low} + {a_stride}]\n",
            "tdpbf16ps tmm2, tmm5, tmm6\n",
            $right,
            "tdpbf16ps tmm3, tmm5, tmm7\n",
            "add {a_now}, 64\n",
            "add {low}, 64\n",
            "add {b_now}, 2048\n",
        )
    };
}

/// The block of C is stored.
macro_rules! store_block {
    ($right:literal) => {
        concat!(
            "mov {low}, {c_stride}\n",
            "shl {low}, 4\n",
            "add {low}, {c}\n",
            "tilestored [{c} + {c_stride}], tmm0\n",
            $right,
            "tilestored [{c} + {c_stride} + 64], tmm1\n",
            "tilestored [{low} + {c_stride}], tmm2\n",
            $right,
            "tilestored [{low} + {c_stride} + 64], tmm3\n",
        )
    };
}

/// A function that computes a block: tmm0–3 are the block of C, tmm4–5 two tiles of A above each other,
/// tmm6–7 two of B side by side. `$right` stands before what concerns the right half of the block: nothing,
/// or the sign of a comment.
macro_rules! tile_block {
    ($name:ident, $right:literal) => {
/// # Safety
/// AMX is there and configured; see the call for what the pointers must hold. Strides are in bytes,
/// there is at least one term.
unsafe fn $name(
    c: *mut f32,
    c_stride: usize,
    a: *const u32,
    a_stride: usize,
    b: *const u32,
    terms: &[Term],
    add: bool,
) {
    // SAFETY: the contract above; the tiles are declared as clobbered.
    unsafe {
        asm!(
            begin_block!($right),
            "3:",
            // a term: {term} points to its words a, b, depth
            "mov {a_now}, [{term}]",
            "lea {a_now}, [{a} + 4*{a_now}]",
            "mov {b_now}, [{term} + 8]",
            "lea {b_now}, [{b} + 4*{b_now}]",
            "mov {depth}, [{term} + 16]",
            "mov {low}, {a_stride}",
            "shl {low}, 4",
            "add {low}, {a_now}",
            "sub {depth}, 16",
            "jc 5f",
            "4:",
            multiply_step!($right),
            "sub {depth}, 16",
            "jnc 4b",
            "5:",
            "add {term}, 24",
            "cmp {term}, {end}",
            "jb 3b",
            store_block!($right),
            c = in(reg) c,
            c_stride = in(reg) c_stride,
            a = in(reg) a,
            a_stride = in(reg) a_stride,
            low = out(reg) _,
            a_now = out(reg) _,
            b = in(reg) b,
            b_stride = in(reg) 128usize,
            b_now = out(reg) _,
            term = inout(reg) terms.as_ptr() => _,
            end = in(reg) terms.as_ptr_range().end,
            depth = inout(reg) u64::from(add) => _,
            out("tmm0") _, out("tmm1") _, out("tmm2") _, out("tmm3") _,
            out("tmm4") _, out("tmm5") _, out("tmm6") _, out("tmm7") _,
            options(nostack),
        );
    }
}
    };
}

tile_block!(whole_block, "");
tile_block!(half_block, "# ");
