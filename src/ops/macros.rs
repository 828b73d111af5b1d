//! How a kernel becomes one of candle's custom operations.

/// Implements one of candle's `CustomOp` traits for a type whose method `run1`, `run2` or
/// `run3::<T>(&self, Arg, …)` computes the result from contiguous tensors, the first of them of `T`:
/// `f32`, `f64` or, with `CustomOp1 + bf16`, also `bf16`. What follows the name (its backward pass) goes
/// into the implementation as it stands.
macro_rules! cpu_op {
    (CustomOp1 $(+ $bf16:ident)? for $op:ty, $name:literal $(, $($rest:tt)*)?) => {
        impl candle_core::CustomOp1 for $op {
            fn name(&self) -> &'static str { $name }
            fn cpu_fwd(
                &self,
                s1: &candle_core::CpuStorage, l1: &candle_core::Layout,
            ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
                let _span = $crate::profile::span($crate::profile::part_of($name));
                let dtype = candle_core::backend::BackendStorage::dtype(s1);
                $crate::ops::macros::dispatch!($name, dtype, T => self.run1::<T>((s1, l1)) $(, $bf16)?)
            }
            $($($rest)*)?
        }
    };
    (CustomOp2 $(+ $bf16:ident)? for $op:ty, $name:literal $(, $($rest:tt)*)?) => {
        impl candle_core::CustomOp2 for $op {
            fn name(&self) -> &'static str { $name }
            fn cpu_fwd(
                &self,
                s1: &candle_core::CpuStorage, l1: &candle_core::Layout,
                s2: &candle_core::CpuStorage, l2: &candle_core::Layout,
            ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
                let _span = $crate::profile::span($crate::profile::part_of($name));
                let dtype = candle_core::backend::BackendStorage::dtype(s1);
                $crate::ops::macros::dispatch!($name, dtype, T => self.run2::<T>((s1, l1), (s2, l2)) $(, $bf16)?)
            }
            $($($rest)*)?
        }
    };
    (CustomOp3 $(+ $bf16:ident)? for $op:ty, $name:literal $(, $($rest:tt)*)?) => {
        impl candle_core::CustomOp3 for $op {
            fn name(&self) -> &'static str { $name }
            fn cpu_fwd(
                &self,
                s1: &candle_core::CpuStorage, l1: &candle_core::Layout,
                s2: &candle_core::CpuStorage, l2: &candle_core::Layout,
                s3: &candle_core::CpuStorage, l3: &candle_core::Layout,
            ) -> candle_core::Result<(candle_core::CpuStorage, candle_core::Shape)> {
                let _span = $crate::profile::span($crate::profile::part_of($name));
                let dtype = candle_core::backend::BackendStorage::dtype(s1);
                $crate::ops::macros::dispatch!($name, dtype, T => self.run3::<T>((s1, l1), (s2, l2), (s3, l3)) $(, $bf16)?)
            }
            $($($rest)*)?
        }
    };
}

/// What an expression gives where `T` is the element type of a tensor of `dtype`: `f32`, `f64` or, where
/// `bf16` follows, also `bf16`. An error that names `op` for other types.
macro_rules! dispatch {
    ($op:expr, $dtype:expr, $T:ident => $body:expr, bf16) => {
        match $dtype {
            candle_core::DType::BF16 => {
                type $T = half::bf16;
                $body
            }
            other => $crate::ops::macros::dispatch!($op, other, $T => $body),
        }
    };
    ($op:expr, $dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            candle_core::DType::F32 => {
                type $T = f32;
                $body
            }
            candle_core::DType::F64 => {
                type $T = f64;
                $body
            }
            other => Err(candle_core::Error::UnsupportedDTypeForOp(other, $op).bt()),
        }
    };
}
pub(super) use {cpu_op, dispatch};
