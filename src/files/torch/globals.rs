//! The few globals that a file of tensors names.

use safetensors::Dtype;

use crate::files::checked_file::shown;

/// A global that may be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Global {
    /// `_rebuild_tensor` and `_rebuild_tensor_v2`: storage, offset, size, stride, and what training needs.
    Tensor,
    /// `_rebuild_parameter` and its like: a tensor, and what training needs.
    Parameter,
    /// `_rebuild_from_type_v2`: a function, a class, the function's arguments, a state.
    FromType,
    OrderedDict,
    /// `torch.Size`: a tuple in a tuple.
    Size,
    /// A class of storages; `None` for complex and quantised numbers.
    Storage(Option<Dtype>),
    /// Makes something that is no tensor.
    Inert,
}

impl Global {
    /// The global of this name.
    ///
    /// # Errors
    /// For any other than those that tensors need.
    pub(super) fn find(module: &str, name: &str) -> Result<Self, String> {
        if matches!(module, "torch" | "torch.cuda" | "torch.storage")
            && let Some(dtype) = storage(name)
        {
            return Ok(Self::Storage(dtype));
        }
        Ok(match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::Tensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::Parameter
            }
            ("torch._tensor", "_rebuild_from_type_v2") => Self::FromType,
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            _ if is_inert(module, name) => Self::Inert,
            _ => {
                let full = shown(&format!("{module}.{name}"));
                return Err(format!(
                    "the pickle would run `{full}`; only tensors are read, as torch.save(model.state_dict(), ...) writes them"
                ));
            }
        })
    }
}

/// `true` for globals that make what is no tensor and does no harm.
fn is_inert(module: &str, name: &str) -> bool {
    let names = match module {
        "torch" => {
            "device Tensor float16 bfloat16 float32 float64 int64 int32 int16 int8 uint8 bool"
        }
        "torch.nn.parameter" => "Parameter Buffer",
        "collections" => "Counter defaultdict",
        "argparse" => "Namespace",
        "pathlib" => "Path PosixPath PurePosixPath WindowsPath",
        "numpy.core.multiarray" | "numpy._core.multiarray" => "scalar _reconstruct",
        "numpy.core.numeric" | "numpy._core.numeric" => "_frombuffer",
        "numpy" => "dtype ndarray float64 float32 int64",
        "_codecs" => "encode",
        "builtins" | "__builtin__" => {
            "set frozenset complex bytearray list dict tuple int float bool str slice"
        }
        _ => return false,
    };
    names.split(' ').any(|inert| inert == name)
}

/// The type of the numbers of a class of storages.
fn storage(class: &str) -> Option<Option<Dtype>> {
    Some(Some(match class.strip_suffix("Storage")? {
        "Float" => Dtype::F32,
        "Double" => Dtype::F64,
        "Half" => Dtype::F16,
        "BFloat16" => Dtype::BF16,
        "Long" => Dtype::I64,
        "Int" => Dtype::I32,
        "Short" => Dtype::I16,
        "Char" => Dtype::I8,
        "Byte" | "Untyped" | "Typed" => Dtype::U8,
        "Bool" => Dtype::BOOL,
        "QInt8" | "QUInt8" | "QUInt4x2" | "QUInt2x4" | "QInt32" | "ComplexFloat"
        | "ComplexDouble" => return Some(None),
        _ => return None,
    }))
}
