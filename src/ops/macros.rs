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
                $crate::ops::macros::dispatch!($name, s1, self.run1((s1, l1)) $(, $bf16)?)
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
                $crate::ops::macros::dispatch!($name, s1, self.run2((s1, l1), (s2, l2)) $(, $bf16)?)
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
                $crate::ops::macros::dispatch!($name, s1, self.run3((s1, l1), (s2, l2), (s3, l3)) $(, $bf16)?)
            }
            $($($rest)*)?
        }
    };
}

/// Runs a generic method for the element type of a storage.
macro_rules! dispatch {
    ($op:literal, $storage:expr, $self:ident.$method:ident($($arg:expr),*), bf16) => {
        match $storage {
            candle_core::CpuStorage::BF16(_) => $self.$method::<half::bf16>($($arg),*),
            other => $crate::ops::macros::dispatch!($op, other, $self.$method($($arg),*)),
        }
    };
    ($op:literal, $storage:expr, $self:ident.$method:ident($($arg:expr),*)) => {
        match $storage {
            candle_core::CpuStorage::F32(_) => $self.$method::<f32>($($arg),*),
            candle_core::CpuStorage::F64(_) => $self.$method::<f64>($($arg),*),
            other => {
                let dtype = candle_core::backend::BackendStorage::dtype(other);
                Err(candle_core::Error::UnsupportedDTypeForOp(dtype, $op).bt())
            }
        }
    };
}
pub(super) use {cpu_op, dispatch};
