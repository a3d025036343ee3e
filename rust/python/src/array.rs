//! DLPack in, DLPack out: borrowed slices of the caller's memory, and results that own theirs.
//!
//! What a kernel reads must not be written meanwhile: the interpreter is released while it runs, so another thread
//! could, and a torn result is then the least that may happen. `subbyte.kernels` says so to its callers.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use dlpark::ffi::{DLDataType, DLDevice, DLDeviceType, DLManagedTensor, DLManagedTensorVersioned};
use dlpark::metadata::Dynamic;
use dlpark::python::{DlpackExporter, ExportRequest, ImportRequest, ImportedDlpack, export_dlpack, from_dlpack};
use dlpark::tensor::{self, TensorRef};
use dlpark::{DlpackElement, DlpackFlags, Managed, ManagedTensorBase};
use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyOverflowError, PyTypeError};
use pyo3::prelude::*;

use subbyte_kernels::minifloat::Narrow;
use subbyte_kernels::{Machine, quantize};

use crate::errors::error;
use crate::memory::Memory;

/// The name of a dtype as NumPy and torch spell it, shortened: `f32`, `u8`.
fn dtype_name(dtype: DLDataType) -> String {
    let kind = match dtype.code.0 {
        0 => "i",
        1 => "u",
        2 => "f",
        4 => "bf",
        5 => "complex",
        6 => "bool",
        code => return format!("DLPack type {code} of {} bits", dtype.bits),
    };
    let lanes = if dtype.lanes == 1 { String::new() } else { format!("x{}", dtype.lanes) };
    format!("{kind}{}{lanes}", dtype.bits)
}

/// An array on its way in, of any dtype yet.
struct Import {
    owner: ImportedDlpack,
    shape: Vec<usize>,
}

impl Import {
    fn new(what: &str, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let kind = || object.get_type().name().map_or_else(|_| "an object".to_owned(), |name| name.to_string());
        if !object.hasattr("__dlpack__")? {
            let hint = "wrap it, for example by numpy.asarray(..., dtype)";
            return Err(error(py, "DtypeError", what, kind(), "an array that speaks DLPack", hint));
        }
        let on_cpu = |device: DLDevice| match device.device_type {
            DLDeviceType::CPU | DLDeviceType::CUDAHOST | DLDeviceType::ROCMHOST => Ok(()),
            other => {
                let given = format!("an array on DLPack device {}:{}", other.0, device.device_id);
                Err(error(py, "DeviceError", what, given, "an array in host memory", "move it to the CPU"))
            }
        };
        // Asked before the export, so that an array of another device is not exported (and not waited for) at all.
        let request = ImportRequest::new(object.as_borrowed())?;
        if let Ok(device) = request.device() {
            on_cpu(device)?;
        }
        let exported = request.import(None, None).or_else(|refusal| match refusal.is_instance_of::<PyTypeError>(py) {
            // Exporters from before DLPack 1.0 take no `max_version`.
            true => from_dlpack(object.call_method0("__dlpack__")?.as_borrowed(), None, None),
            false => Err(refusal),
        });
        let owner = exported.map_err(|refusal| refused(py, what, &kind(), refusal))?;
        let view = owner.validate().map_err(|fault| malformed(py, what, &fault))?;
        on_cpu(view.device())?;
        let shape = view.shape().iter().map(|&n| n as usize).collect();
        Ok(Self { owner, shape })
    }

    fn view(&self, py: Python<'_>, what: &str) -> PyResult<TensorRef<'_>> {
        self.owner.validate().map_err(|fault| malformed(py, what, &fault))
    }

    /// The address of the first element, once the rest is known to follow it in row-major order.
    fn data<T: DlpackElement>(&self, py: Python<'_>, what: &str) -> PyResult<NonNull<T>> {
        let view = self.view(py, what)?;
        if !compact(&view) {
            let given = format!("shape {:?} with strides {:?}", view.shape(), view.strides().unwrap_or_default());
            return Err(error(py, "StrideError", what, given, "a contiguous array", "pass a contiguous copy"));
        }
        // SAFETY: the address is only computed here; that it lies in the allocation is the exporter's promise.
        let data = unsafe { view.offset_data_ptr::<T>() }.map_err(|fault| match fault {
            tensor::Error::MisalignedData { ptr, align } => {
                let given = format!("an address {} past a multiple of {align}", ptr % align);
                error(py, "StrideError", what, given, "elements aligned to their size", "pass an aligned copy")
            }
            other => malformed(py, what, &other),
        })?;
        Ok(NonNull::new(data.cast_mut()).unwrap_or(NonNull::dangling()))
    }
}

/// An exporter that declines says why in its own words (a dtype outside DLPack, gradients, byte order, ...).
fn refused(py: Python<'_>, what: &str, kind: &str, refusal: PyErr) -> PyErr {
    let reason = refusal.value(py).to_string();
    let bare = kind == "ndarray" && reason.contains("dtype");
    let hint =
        if bare { "NumPy has no bf16 or fp8 that DLPack knows: pass f32 or f16, or a torch or JAX array" } else { "" };
    let raised = error(
        py,
        "DtypeError",
        what,
        format!("{kind} that refuses to be exported ({reason})"),
        "a DLPack export",
        hint,
    );
    raised.set_cause(py, Some(refusal));
    raised
}

fn malformed(py: Python<'_>, what: &str, fault: &tensor::Error) -> PyErr {
    error(py, "StrideError", what, format!("a DLPack export that is malformed ({fault})"), "a valid DLPack tensor", "")
}

/// Whether elements follow each other in row-major order; strides of axes of length one, and of empty arrays, say nothing.
fn compact(view: &TensorRef<'_>) -> bool {
    let Some(strides) = view.strides() else { return true };
    let mut expected = 1;
    view.num_elements() == 0
        || view.shape().iter().zip(strides).rev().all(|(&length, &stride)| {
            let follows = length == 1 || stride == expected;
            expected *= length;
            follows
        })
}

/// A contiguous array in host memory whose elements are `T`.
pub struct Input<T> {
    import: Import,
    data: NonNull<T>,
    what: &'static str,
}

impl<T: DlpackElement> Input<T> {
    /// Takes `object`, called `what` in errors.
    pub fn take(what: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        Self::of(what, object.py(), Import::new(what, object)?)
    }

    fn of(what: &'static str, py: Python<'_>, import: Import) -> PyResult<Self> {
        let given = import.view(py, what)?.dtype();
        if !given.is::<T>() {
            return Err(error(py, "DtypeError", what, dtype_name(given), &dtype_name(T::DTYPE), "cast it first"));
        }
        let data = import.data(py, what)?;
        Ok(Self { import, data, what })
    }

    /// The elements.
    pub fn slice(&self) -> &[T] {
        // SAFETY: `take` checked host memory, dtype, alignment and row-major order; the exporter promises that the
        // elements exist, `owner` keeps them alive, and callers may not write them meanwhile.
        unsafe { slice::from_raw_parts(self.data.as_ptr(), self.len()) }
    }

    fn len(&self) -> usize {
        self.import.shape.iter().product()
    }

    /// The length of every axis.
    pub fn shape(&self) -> &[usize] {
        &self.import.shape
    }

    /// The lengths of exactly `N` axes.
    pub fn axes<const N: usize>(&self, py: Python<'_>) -> PyResult<[usize; N]> {
        axes(py, self.what, self.shape())
    }

    /// Checks the length of every axis.
    pub fn expect(&self, py: Python<'_>, expected: &[usize]) -> PyResult<()> {
        expect(py, self.what, self.shape(), expected)
    }
}

fn axes<const N: usize>(py: Python<'_>, what: &str, shape: &[usize]) -> PyResult<[usize; N]> {
    let expected = if N == 1 { "1 axis".to_owned() } else { format!("{N} axes") };
    shape.try_into().map_err(|_| error(py, "ShapeError", what, format!("shape {shape:?}"), &expected, ""))
}

fn last_axis<'a>(py: Python<'_>, what: &str, shape: &'a [usize]) -> PyResult<(&'a [usize], usize)> {
    let (&last, others) =
        shape.split_last().ok_or_else(|| error(py, "ShapeError", what, "shape []", "at least 1 axis", ""))?;
    Ok((others, last))
}

fn expect(py: Python<'_>, what: &str, given: &[usize], expected: &[usize]) -> PyResult<()> {
    if given == expected {
        return Ok(());
    }
    Err(error(py, "ShapeError", what, format!("shape {given:?}"), &format!("shape {expected:?}"), ""))
}

/// The one kind of argument that a kernel writes.
pub struct InOut<T>(Input<T>);

impl<T: DlpackElement> InOut<T> {
    /// Takes `object` for writing.
    pub fn take(what: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let input = Input::take(what, object)?;
        if input.import.owner.flags().contains(DlpackFlags::READ_ONLY) {
            let hint = "it is updated in place: pass a writable array";
            return Err(error(object.py(), "StrideError", what, "a read-only array", "a writable array", hint));
        }
        Ok(Self(input))
    }

    /// The array, for its shape.
    pub fn input(&self) -> &Input<T> {
        &self.0
    }

    /// Refuses an input that shares memory with this array: a kernel could not tell what it read from what it wrote.
    pub fn apart<U: DlpackElement>(&self, py: Python<'_>, other: &Input<U>) -> PyResult<()> {
        let range = |start: usize, bytes: usize| start..start + bytes;
        let own = range(self.0.data.addr().get(), size_of_val(self.0.slice()));
        let others = range(other.data.addr().get(), size_of_val(other.slice()));
        if own.start < others.end && others.start < own.end {
            let given = format!("memory shared with {}", self.0.what);
            return Err(error(py, "StrideError", other.what, given, "memory of its own", "pass a copy"));
        }
        Ok(())
    }

    /// The elements, for writing.
    pub fn slice_mut(&mut self) -> &mut [T] {
        // SAFETY: as for `Input::slice`; the exporter did not mark the memory read-only, `apart` keeps the other
        // arguments off it, and callers may not touch it from elsewhere meanwhile.
        unsafe { slice::from_raw_parts_mut(self.0.data.as_ptr(), self.0.len()) }
    }
}

/// An array of one of the float dtypes that activations and scales come in.
pub enum Floats {
    /// Used as it is.
    F32(Input<f32>),
    /// Widened.
    F16(Input<f16>),
    /// Widened.
    Bf16(Input<bf16>),
}

impl Floats {
    /// Takes `object`, called `what` in errors.
    pub fn take(what: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let import = Import::new(what, object)?;
        match import.view(py, what)?.dtype() {
            given if given.is::<f32>() => Input::of(what, py, import).map(Self::F32),
            given if given.is::<f16>() => Input::of(what, py, import).map(Self::F16),
            given if given.is::<bf16>() => Input::of(what, py, import).map(Self::Bf16),
            given => Err(error(py, "DtypeError", what, dtype_name(given), "f32, f16 or bf16", "cast it first")),
        }
    }

    /// The length of every axis.
    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(input) => input.shape(),
            Self::F16(input) => input.shape(),
            Self::Bf16(input) => input.shape(),
        }
    }

    /// The lengths of exactly `N` axes.
    pub fn axes<const N: usize>(&self, py: Python<'_>, what: &str) -> PyResult<[usize; N]> {
        axes(py, what, self.shape())
    }

    /// All axes but the last, and the last.
    pub fn last_axis(&self, py: Python<'_>, what: &str) -> PyResult<(&[usize], usize)> {
        last_axis(py, what, self.shape())
    }

    /// Checks the length of every axis.
    pub fn expect(&self, py: Python<'_>, what: &str, expected: &[usize]) -> PyResult<()> {
        expect(py, what, self.shape(), expected)
    }

    /// Room for the elements as f32, where they have to be widened.
    pub fn room(&self) -> PyResult<Output<f32>> {
        match self {
            Self::F32(_) => Output::zeroed(&[0]),
            Self::F16(_) | Self::Bf16(_) => Output::stale(self.shape()),
        }
    }

    /// The elements, still in their dtype.
    pub fn narrow(&self) -> Narrow<'_> {
        match self {
            Self::F32(input) => Narrow::F32(input.slice()),
            Self::F16(input) => Narrow::F16(input.slice().reinterpret_cast()),
            Self::Bf16(input) => Narrow::Bf16(input.slice().reinterpret_cast()),
        }
    }
}

/// Parameters of groups: codes, or one of the float dtypes.
pub enum Parameters {
    /// What a byte stands for is the kernel's own.
    Codes(Input<u8>),
    /// Any numbers.
    Floats(Floats),
}

impl Parameters {
    /// Takes `object`, called `what` in errors.
    pub fn take(what: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let import = Import::new(what, object)?;
        match import.view(py, what)?.dtype() {
            given if given.is::<u8>() => Input::of(what, py, import).map(Self::Codes),
            given if given.is::<f32>() || given.is::<f16>() || given.is::<bf16>() => {
                Floats::take(what, object).map(Self::Floats)
            }
            given => Err(error(py, "DtypeError", what, dtype_name(given), "u8, f32, f16 or bf16", "cast it first")),
        }
    }

    /// Checks the length of every axis.
    pub fn expect(&self, py: Python<'_>, what: &str, expected: &[usize]) -> PyResult<()> {
        match self {
            Self::Codes(zero) => zero.expect(py, expected),
            Self::Floats(zero) => zero.expect(py, what, expected),
        }
    }

    /// Room for the elements as f32, where they have to be widened.
    pub fn room(&self) -> PyResult<Output<f32>> {
        match self {
            Self::Codes(_) => Output::zeroed(&[0]),
            Self::Floats(zero) => zero.room(),
        }
    }

    /// The elements, still in their dtype.
    pub fn narrow(&self) -> NarrowParameters<'_> {
        match self {
            Self::Codes(zero) => NarrowParameters::Codes(zero.slice()),
            Self::Floats(zero) => NarrowParameters::Floats(zero.narrow()),
        }
    }
}

/// The elements of [`Parameters`], without anything of Python.
#[derive(Clone, Copy)]
pub enum NarrowParameters<'a> {
    /// The values.
    Codes(&'a [u8]),
    /// The values or their bits.
    Floats(Narrow<'a>),
}

impl<'a> NarrowParameters<'a> {
    /// As a kernel takes zero points, in `room` if need be.
    pub fn widen(self, on: &Machine, room: &'a mut [f32]) -> subbyte_kernels::Result<quantize::Zeros<'a>> {
        match self {
            Self::Codes(zero) => Ok(quantize::Zeros::Codes(zero)),
            Self::Floats(zero) => zero.widen(on, room).map(quantize::Zeros::Floats),
        }
    }
}

/// Numbers of columns: two bytes each where that is enough, else four.
pub enum Places {
    /// Up to 65 536 columns.
    U16(Input<u16>),
    /// More.
    I32(Input<i32>),
}

impl Places {
    /// Takes `object`, called `what` in errors.
    pub fn take(what: &'static str, object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let import = Import::new(what, object)?;
        match import.view(py, what)?.dtype() {
            given if given.is::<u16>() => Input::of(what, py, import).map(Self::U16),
            given if given.is::<i32>() => Input::of(what, py, import).map(Self::I32),
            given => Err(error(py, "DtypeError", what, dtype_name(given), "u16 or i32", "cast it first")),
        }
    }

    /// Checks the length of every axis.
    pub fn expect(&self, py: Python<'_>, what: &str, expected: &[usize]) -> PyResult<()> {
        match self {
            Self::U16(places) => expect(py, what, places.shape(), expected),
            Self::I32(places) => expect(py, what, places.shape(), expected),
        }
    }

    /// The elements.
    pub fn narrow(&self) -> NarrowPlaces<'_> {
        match self {
            Self::U16(places) => NarrowPlaces::U16(places.slice()),
            Self::I32(places) => NarrowPlaces::I32(places.slice()),
        }
    }
}

/// The elements of [`Places`], without anything of Python.
#[derive(Clone, Copy)]
pub enum NarrowPlaces<'a> {
    /// In two bytes.
    U16(&'a [u16]),
    /// In four.
    I32(&'a [i32]),
}

/// A result while a kernel writes it: contiguous, of the given shape.
pub struct Output<T> {
    memory: Memory,
    shape: Vec<i64>,
    len: usize,
    elements: PhantomData<T>,
}

impl<T: DlpackElement> Output<T> {
    /// Room for an array of that shape, all zeros.
    pub fn zeroed(shape: &[usize]) -> PyResult<Self> {
        Self::in_memory(shape, Memory::zeroed)
    }

    /// Room for an array of that shape, for a kernel that writes every element: what stands there is nobody's.
    pub fn stale(shape: &[usize]) -> PyResult<Self> {
        Self::in_memory(shape, Memory::stale)
    }

    fn in_memory(shape: &[usize], memory: fn(usize) -> Option<Memory>) -> PyResult<Self> {
        let too_large = || PyOverflowError::new_err(format!("a result of shape {shape:?} is larger than any memory"));
        let len = shape.iter().try_fold(1_usize, |len, &n| len.checked_mul(n)).ok_or_else(too_large)?;
        let bytes = len.checked_mul(size_of::<T>()).ok_or_else(too_large)?;
        let out_of_memory = || PyMemoryError::new_err(format!("cannot allocate {bytes} bytes for a result"));
        let memory = memory(bytes).ok_or_else(out_of_memory)?;
        let shape = shape.iter().map(|&n| i64::try_from(n)).collect::<Result<_, _>>().map_err(|_| too_large())?;
        Ok(Self { memory, shape, len, elements: PhantomData })
    }

    /// The elements.
    pub fn slice_mut(&mut self) -> &mut [T] {
        // SAFETY: the allocation has `len` elements at an alignment above theirs, its bytes are initialised, any bytes are
        // a value of every element that a kernel writes (integers and floats), and nothing else knows of the memory before
        // `finish`.
        unsafe { slice::from_raw_parts_mut(self.memory.data().cast().as_ptr(), self.len) }
    }

    /// The array as Python sees it; from here on its memory belongs to whoever imports it.
    pub fn finish(self) -> Buffer {
        Buffer { memory: Arc::new(self.memory), dtype: T::DTYPE, shape: self.shape }
    }
}

/// A result, to be taken by some framework's `from_dlpack`: every export shares the same writable memory.
#[pyclass(frozen, module = "subbyte._rust")]
pub struct Buffer {
    memory: Arc<Memory>,
    dtype: DLDataType,
    shape: Vec<i64>,
}

impl Buffer {
    fn export<M: ManagedTensorBase>(&self) -> PyResult<Managed<M>> {
        let metadata = Dynamic::compact(self.shape.as_slice());
        let mut managed = metadata
            .initialize_as::<M>(Arc::clone(&self.memory))
            .map_err(|fault| PyBufferError::new_err(fault.to_string()))?;
        managed.set_data(self.memory.data().as_ptr().cast()).set_dtype(self.dtype).set_device(DLDevice::CPU);
        // SAFETY: shape, strides and dtype describe memory that the `Arc` in the managed tensor keeps alive.
        Ok(unsafe { managed.finish() })
    }
}

impl DlpackExporter for Buffer {
    fn device(&self) -> DLDevice {
        DLDevice::CPU
    }
    fn flags(&self) -> DlpackFlags {
        DlpackFlags::empty()
    }
    fn prepare_export(&self, _: Python<'_>, _: &ExportRequest<'_>) -> PyResult<()> {
        Ok(())
    }
    fn export_legacy(&self, _: Python<'_>) -> PyResult<Managed<DLManagedTensor>> {
        self.export()
    }
    fn export_versioned(&self, _: Python<'_>) -> PyResult<Managed<DLManagedTensorVersioned>> {
        self.export()
    }
}

#[pymethods]
impl Buffer {
    #[pyo3(signature = (*, stream = None, max_version = None, dl_device = None, copy = None))]
    fn __dlpack__<'py>(
        &self,
        py: Python<'py>,
        stream: Option<&Bound<'py, PyAny>>,
        max_version: Option<(u32, u32)>,
        dl_device: Option<(u32, i32)>,
        copy: Option<bool>,
    ) -> PyResult<Py<PyAny>> {
        export_dlpack(self, py, ExportRequest::parse(stream, max_version, dl_device, copy)?)
    }

    fn __dlpack_device__(&self) -> (u32, i32) {
        (DLDevice::CPU.device_type.0, DLDevice::CPU.device_id)
    }
}
