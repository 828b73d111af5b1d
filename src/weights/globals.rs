//! The few globals that a file of tensors names, and what calling them would give.

use super::numbers::{Kind, View};
use super::pickle::Pickle;
use super::source::shown;
use super::values::{Object, StorageRef, Value};

/// Bytes of a storage's name, which is a number.
const MAX_KEY: usize = 64;

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
    /// A class of storages.
    Storage(Kind),
    /// What makes something that is no tensor.
    Inert,
}

type Result<T> = std::result::Result<T, String>;

impl Global {
    /// The global of this name.
    ///
    /// # Errors
    /// Where it is none of those that tensors need.
    pub(super) fn find(module: &str, name: &str) -> Result<Self> {
        let python = |name| {
            matches!(
                name,
                "set"
                    | "frozenset"
                    | "complex"
                    | "bytearray"
                    | "list"
                    | "dict"
                    | "tuple"
                    | "int"
                    | "float"
                    | "bool"
                    | "str"
                    | "slice"
            )
        };
        Ok(match (module, name) {
            ("torch._utils", "_rebuild_tensor" | "_rebuild_tensor_v2") => Self::Tensor,
            ("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state") => {
                Self::Parameter
            }
            ("torch._tensor", "_rebuild_from_type_v2") => Self::FromType,
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch", "Size") => Self::Size,
            ("torch" | "torch.cuda" | "torch.storage", class) if storage(class).is_some() => {
                Self::Storage(storage(class).unwrap_or(Kind::U8))
            }
            (
                "torch",
                "device" | "Tensor" | "float16" | "bfloat16" | "float32" | "float64" | "int64"
                | "int32" | "int16" | "int8" | "uint8" | "bool",
            )
            | ("torch.nn.parameter", "Parameter" | "Buffer")
            | ("collections", "Counter" | "defaultdict")
            | ("argparse", "Namespace")
            | ("pathlib", "Path" | "PosixPath" | "PurePosixPath" | "WindowsPath")
            | ("numpy.core.multiarray" | "numpy._core.multiarray", "scalar" | "_reconstruct")
            | ("numpy.core.numeric" | "numpy._core.numeric", "_frombuffer")
            | ("numpy", "dtype" | "ndarray" | "float64" | "float32" | "int64")
            | ("_codecs", "encode") => Self::Inert,
            ("builtins" | "__builtin__", class) if python(class) => Self::Inert,
            _ => {
                let full = shown(&format!("{module}.{name}"));
                return Err(format!(
                    "the pickle would run `{full}`; only tensors are read, as torch.save(model.state_dict(), ...) writes them"
                ));
            }
        })
    }
}

/// The numbers of a class of storages.
fn storage(class: &str) -> Option<Kind> {
    Some(match class {
        "FloatStorage" => Kind::F32,
        "DoubleStorage" => Kind::F64,
        "HalfStorage" => Kind::F16,
        "BFloat16Storage" => Kind::BF16,
        "LongStorage" => Kind::I64,
        "IntStorage" => Kind::I32,
        "ShortStorage" => Kind::I16,
        "CharStorage" => Kind::I8,
        "ByteStorage" | "UntypedStorage" | "TypedStorage" => Kind::U8,
        "BoolStorage" => Kind::Bool,
        "QInt8Storage" | "QUInt8Storage" | "QUInt4x2Storage" | "QUInt2x4Storage" => Kind::Other(1),
        "QInt32Storage" => Kind::Other(4),
        "ComplexFloatStorage" => Kind::Other(8),
        "ComplexDoubleStorage" => Kind::Other(16),
        _ => return None,
    })
}

impl Pickle<'_> {
    /// What `callee(*args)` gives.
    pub(super) fn call(&mut self, mut callee: Value, mut args: Value) -> Result<Value> {
        loop {
            let global = match self.object(callee) {
                Some(Object::Global(global)) => *global,
                _ => return Err("damaged: it calls what cannot be called".into()),
            };
            let parts = self.tuple(args).ok_or("damaged: a call without arguments")?;
            return Ok(match (global, parts) {
                (Global::FromType, &[inner, _, inner_args, ..]) => {
                    // an argument is older than the call that has it: this ends
                    (callee, args) = (inner, inner_args);
                    continue;
                }
                (Global::Tensor, &[_, _, _, _, ..]) => {
                    let parts = parts[..4].to_vec();
                    self.new_object(Object::Tensor(parts))
                }
                (Global::Parameter, &[tensor, ..]) => match self.object(tensor) {
                    Some(Object::Tensor(_)) => tensor,
                    _ => return Err("damaged: a parameter that is no tensor".into()),
                },
                (Global::Size, &[size]) => size,
                (Global::OrderedDict, parts) => {
                    let pairs = self.pairs(parts)?;
                    // a list may be copied again and again
                    pairs.iter().try_for_each(|_| self.count())?;
                    self.new_object(Object::Dict(pairs))
                }
                (Global::Inert, _) => self.new_object(Object::Inert),
                _ => return Err("damaged: a call with other arguments than it needs".into()),
            });
        }
    }

    /// The entries of `OrderedDict()` or `OrderedDict([[key, value], ...])`.
    fn pairs(&self, args: &[Value]) -> Result<Vec<(Value, Value)>> {
        let wrong = || "damaged: a dict made of something else than pairs".to_string();
        let list = match args {
            [] => return Ok(Vec::new()),
            &[list] => match self.object(list) {
                Some(Object::List(list) | Object::Tuple(list)) => list,
                _ => return Err(wrong()),
            },
            _ => return Err(wrong()),
        };
        let pair = |&pair: &Value| match self.object(pair) {
            Some(Object::List(parts) | Object::Tuple(parts)) => match parts[..] {
                [key, value] => Ok((key, value)),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        };
        list.iter().map(pair).collect()
    }

    /// The storage that a persistent id, `("storage", class, key, place, count, ...)`, stands for.
    pub(super) fn storage(&self, id: Value) -> Result<StorageRef> {
        let parts = self.tuple(id).unwrap_or_default();
        let name = parts.first().and_then(|&name| self.text(name));
        let (class, key, count) = match (name, parts) {
            (
                Some("storage"),
                &[_, class, Value::Text(key), _, Value::Int(count), ref rest @ ..],
            ) => {
                if rest.iter().any(|&view| view != Value::None) {
                    return Err("a storage that is a part of another one cannot be read; load the file with PyTorch and save it again".into());
                }
                (class, key, count)
            }
            (Some("module"), _) => {
                return Err("it holds a whole Python object; only tensors are read, as torch.save(model.state_dict(), ...) writes them".into());
            }
            _ => return Err("damaged: something else than a storage is stored beside it".into()),
        };
        let Some(&Object::Global(Global::Storage(kind))) = self.object(class) else {
            return Err("damaged: a storage of no known type".into());
        };
        if self.bytes(key).len() > MAX_KEY {
            return Err("damaged: a storage's name is too long".into());
        }
        let count = usize::try_from(count).map_err(|_| format!("a storage of {count} numbers"))?;
        Ok(StorageRef { kind, key, count })
    }

    /// The storage and the view of a tensor's arguments.
    pub(super) fn tensor(&self, parts: &[Value]) -> Result<(StorageRef, View)> {
        let &[storage, Value::Int(offset), size, stride] = parts else {
            return Err("expected storage, offset, size and stride, found something else".into());
        };
        let Some(&Object::Storage(storage)) = self.object(storage) else {
            return Err("expected a storage, found something else".into());
        };
        let lengths = |value| {
            let parts = self.tuple(value).ok_or("expected a size, found something else")?;
            let length = |part: &Value| match *part {
                Value::Int(length) => usize::try_from(length).map_err(|_| {
                    format!("expected lengths and strides of at least 0, found {length}")
                }),
                _ => Err("expected a whole number as a length, found something else".to_string()),
            };
            parts.iter().map(length).collect::<Result<Vec<_>>>()
        };
        let offset = usize::try_from(offset)
            .map_err(|_| format!("expected an offset of at least 0, found {offset}"))?;
        let view = View::new(offset, lengths(size)?, lengths(stride)?, storage.count)?;
        Ok((storage, view))
    }
}
