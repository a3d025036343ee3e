use std::fmt;

/// What went wrong, in the terms of `subbyte.errors`: the Python face maps each kind to one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Error {
    /// A length or shape that does not fit the others.
    Shape(Detail),
    /// A number or option outside what is allowed.
    Range(Detail),
    /// NaN or infinity where a finite number is needed.
    NotFinite(Detail),
    /// A matrix that is not positive definite.
    Singular(Detail),
}

/// The three parts of every message, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detail {
    /// The argument at fault.
    pub what: &'static str,
    /// What was given.
    pub given: String,
    /// What was expected.
    pub expected: String,
    /// What to do about it; may be empty.
    pub hint: &'static str,
}

/// The result of a kernel.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The parts of the message.
    pub fn detail(&self) -> &Detail {
        match self {
            Self::Shape(d) | Self::Range(d) | Self::NotFinite(d) | Self::Singular(d) => d,
        }
    }
    pub(crate) fn shape(what: &'static str, given: impl fmt::Display, expected: impl fmt::Display) -> Self {
        Self::Shape(Detail { what, given: given.to_string(), expected: expected.to_string(), hint: "" })
    }
    pub(crate) fn range(what: &'static str, given: impl fmt::Display, expected: impl fmt::Display) -> Self {
        Self::Range(Detail { what, given: given.to_string(), expected: expected.to_string(), hint: "" })
    }
    pub(crate) fn not_finite(what: &'static str, given: impl fmt::Display) -> Self {
        Self::NotFinite(Detail { what, given: given.to_string(), expected: "finite numbers".to_string(), hint: "" })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Detail { what, given, expected, hint } = self.detail();
        write!(f, "{what}: given {given}, expected {expected}")?;
        if hint.is_empty() { Ok(()) } else { write!(f, "; {hint}") }
    }
}

impl std::error::Error for Error {}

/// Checks a length against what the shape arguments imply.
pub(crate) fn expect_len(what: &'static str, given: usize, expected: usize) -> Result<()> {
    if given == expected { Ok(()) } else { Err(Error::shape(what, given, expected)) }
}

/// The same for a row-major array; a product beyond `usize` can be no length.
pub(crate) fn expect_shape(what: &'static str, given: usize, shape: &[usize]) -> Result<()> {
    match shape.iter().try_fold(1usize, |product, &n| product.checked_mul(n)) {
        Some(expected) => expect_len(what, given, expected),
        None => Err(Error::shape(what, given, format!("the product of {shape:?}"))),
    }
}
