//! The values that calls of globals would give: storages, tensors and dicts.

use super::globals::Global;
use super::objects::{Parsed, Pickle, PickleObject, PicklePair, PickleValue, StorageRef};
use crate::files::listing::StridedView;

/// Bytes of a storage's name, which is a number.
const MAX_KEY: usize = 64;

impl Pickle<'_> {
    /// The value of `callee(*args)`.
    pub(super) fn call(
        &mut self,
        mut callee: PickleValue,
        mut args: PickleValue,
    ) -> Parsed<PickleValue> {
        loop {
            let global = match self.object(callee) {
                Some(PickleObject::Global(global)) => *global,
                _ => return Err("damaged: it calls what cannot be called".into()),
            };
            let parts = self.tuple(args).ok_or("damaged: a call without arguments")?;
            return Ok(match (global, parts) {
                (Global::FromType, &[inner, _, inner_args, ..]) => {
                    // an argument is older than the call that has it: this ends
                    (callee, args) = (inner, inner_args);
                    continue;
                }
                (Global::Tensor, &[a, b, c, d, ..]) => {
                    self.new_object(PickleObject::Tensor(Box::new([a, b, c, d])))
                }
                (Global::Parameter, &[tensor, ..]) => match self.object(tensor) {
                    Some(PickleObject::Tensor(_)) => tensor,
                    _ => return Err("damaged: a parameter that is no tensor".into()),
                },
                (Global::Size, &[size]) => size,
                (Global::OrderedDict, parts) => {
                    let pairs = self.pairs(parts);
                    let pairs = pairs.ok_or("damaged: a dict made of something else than pairs")?;
                    // a list may be copied again and again
                    pairs.iter().try_for_each(|_| self.count())?;
                    self.new_object(PickleObject::Dict(pairs))
                }
                (Global::Inert, _) => self.new_object(PickleObject::Inert),
                _ => return Err("damaged: a call with other arguments than it needs".into()),
            });
        }
    }

    /// The entries of `OrderedDict()` or `OrderedDict([[key, value], ...])`.
    fn pairs(&self, args: &[PickleValue]) -> Option<Vec<PicklePair>> {
        let pair = |&pair| self.parts(pair)?.try_into().ok();
        match *args {
            [] => Some(Vec::new()),
            [list] => self.parts(list)?.iter().map(pair).collect(),
            _ => None,
        }
    }

    /// The storage that a persistent id, `("storage", class, key, place, count, ...)`, stands for.
    pub(super) fn storage(&self, id: PickleValue) -> Parsed<StorageRef> {
        use PickleValue::{Int, None, Text};
        let parts = self.tuple(id).unwrap_or_default();
        let name = parts.first().and_then(|&name| self.text(name));
        let (class, key, count) = match (name, parts) {
            (Some("storage"), &[_, class, Text(key), _, Int(count), ref rest @ ..]) => {
                if rest.iter().any(|&view| view != None) {
                    return Err("a storage that is a part of another one cannot be read; load the file with PyTorch and save it again".into());
                }
                (class, key, count)
            }
            (Some("module"), _) => {
                return Err("it holds a whole Python object; only tensors are read, as torch.save(model.state_dict(), ...) writes them".into());
            }
            _ => return Err("damaged: something else than a storage is stored beside it".into()),
        };
        let Some(&PickleObject::Global(Global::Storage(dtype))) = self.object(class) else {
            return Err("damaged: a storage of no known type".into());
        };
        if self.bytes(key).len() > MAX_KEY {
            return Err("damaged: a storage's name is too long".into());
        }
        let count = usize::try_from(count).map_err(|_| format!("a storage of {count} numbers"))?;
        Ok(StorageRef { dtype, key, count })
    }

    /// The storage and the view of a tensor's arguments.
    pub(super) fn tensor(&self, parts: &[PickleValue; 4]) -> Parsed<(StorageRef, StridedView)> {
        let &[storage, PickleValue::Int(offset), size, stride] = parts else {
            return Err("expected storage, offset, size and stride, found something else".into());
        };
        let Some(&PickleObject::Storage(storage)) = self.object(storage) else {
            return Err("expected a storage, found something else".into());
        };
        let at_least_0 = |what: &str, number: i64| {
            let wrong = |_| format!("expected {what} of at least 0, found {number}");
            usize::try_from(number).map_err(wrong)
        };
        let lengths = |value| {
            let parts = self.tuple(value).ok_or("expected a size, found something else")?;
            let length = |part: &PickleValue| match *part {
                PickleValue::Int(length) => at_least_0("lengths and strides", length),
                _ => Err("expected a whole number as a length, found something else".to_string()),
            };
            parts.iter().map(length).collect::<Parsed<Vec<_>>>()
        };
        let offset = at_least_0("an offset", offset)?;
        let view = StridedView::new(offset, lengths(size)?, lengths(stride)?, storage.count)?;
        Ok((storage, view))
    }
}
