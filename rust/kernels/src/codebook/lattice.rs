//! Codebooks of eight numbers that need no table of their values: E8P, alone (2 bits a number) or with a second stage for what
//! it leaves, the 256 shortest vectors of E8 (3 bits) or E8P again (4 bits) (QuIP#, Tseng et al., 2024, section 4.3).

use super::e8p::{DIM, E8p, Vector};

pub(crate) use super::e8p::Points;
use super::search::Search;
use crate::{Error, Path, Result};
use std::sync::OnceLock;

/// What a residual is multiplied by before the second stage, by the width of its codes.
const E8_SCALE: f32 = 2.04;
const E8P_SCALE: f32 = 3.45;

/// Which of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lattice {
    /// E8P.
    Two,
    /// E8P, then E8.
    Three,
    /// E8P twice.
    Four,
}

impl Lattice {
    /// The one of so many bits a number; [`Error::Range`] for others than 2, 3 and 4.
    pub fn of(bits: u32) -> Result<Self> {
        match bits {
            2 => Ok(Self::Two),
            3 => Ok(Self::Three),
            4 => Ok(Self::Four),
            _ => Err(Error::range("bits", bits, "2, 3 or 4")),
        }
    }

    /// Bits a number, which are the bytes of a code.
    pub fn bits(self) -> usize {
        match self {
            Self::Two => 2,
            Self::Three => 3,
            Self::Four => 4,
        }
    }
}

/// The values of codes: the first stage in the low 16 bits, the second above.
pub(crate) struct Decoder {
    pub first: Points,
    /// The second stage, divided by its scale already.
    pub second: Second,
}

/// What is added to the first stage.
pub(crate) enum Second {
    None,
    /// A value a code.
    E8(Box<[Vector; 256]>),
    /// E8P itself, and what it is divided by.
    E8p(f32),
}

impl Decoder {
    /// The one of a lattice, built at first use.
    pub fn of(lattice: Lattice) -> &'static Self {
        static BUILT: [OnceLock<Decoder>; 3] = [const { OnceLock::new() }; 3];
        BUILT[lattice as usize].get_or_init(|| Self::new(lattice))
    }

    fn new(lattice: Lattice) -> Self {
        let second = match lattice {
            Lattice::Two => Second::None,
            Lattice::Three => {
                let table = shortest();
                Second::E8(Box::new(std::array::from_fn(|k| table[k].map(|v| v / E8_SCALE))))
            }
            Lattice::Four => Second::E8p(E8P_SCALE),
        };
        Self { first: Points::new(), second }
    }

    /// Eight numbers.
    #[inline(always)]
    pub fn value(&self, code: u32) -> Vector {
        let mut value = self.first.value(code as u16);
        match &self.second {
            Second::None => {}
            Second::E8(table) => {
                let rest = &table[(code >> 16 & 255) as usize];
                value.iter_mut().zip(rest).for_each(|(v, rest)| *v += rest);
            }
            Second::E8p(scale) => {
                let rest = self.first.value((code >> 16) as u16);
                value.iter_mut().zip(rest).for_each(|(v, rest)| *v += rest / scale);
            }
        }
        value
    }
}

/// The nearest codes, one stage after the other.
pub(crate) struct Encoder {
    first: E8p,
    e8: Option<Search>,
    decoder: &'static Decoder,
}

impl Encoder {
    /// The one of a lattice, built at first use.
    pub fn of(lattice: Lattice) -> &'static Self {
        static BUILT: [OnceLock<Encoder>; 3] = [const { OnceLock::new() }; 3];
        BUILT[lattice as usize].get_or_init(|| Self::new(lattice))
    }

    fn new(lattice: Lattice) -> Self {
        let e8 = (lattice == Lattice::Three).then(|| {
            let table = shortest();
            let half = |k: usize| table[k].iter().map(|v| 0.5 * v * v).sum();
            Search::new(table.len(), DIM, half, |k, j| table[k][j])
        });
        Self { first: E8p::new(), e8, decoder: Decoder::of(lattice) }
    }

    /// Fills the codes, and the values that they stand for.
    pub fn encode(&self, path: Path, x: &[Vector], codes: &mut [u32], values: &mut [Vector]) {
        let mut first = vec![0; x.len()];
        self.first.encode(path, x, &mut first);
        codes.iter_mut().zip(&first).for_each(|(code, &first)| *code = first.into());
        let rest = |p: usize, j: usize| x[p][j] - self.decoder.first.value(first[p])[j];
        if let Some(e8) = &self.e8 {
            let mut second = vec![0; x.len()];
            e8.some(path, &mut second, |p, j| -E8_SCALE * rest(p, j));
            codes.iter_mut().zip(second).for_each(|(code, second)| *code |= (second as u32) << 16);
        } else if let Second::E8p(scale) = self.decoder.second {
            let left: Vec<Vector> = (0..x.len()).map(|p| std::array::from_fn(|j| scale * rest(p, j))).collect();
            let mut second = vec![0; x.len()];
            self.first.encode(path, &left, &mut second);
            codes.iter_mut().zip(second).for_each(|(code, second)| *code |= u32::from(second) << 16);
        }
        values.iter_mut().zip(codes).for_each(|(value, code)| *value = self.decoder.value(*code));
    }
}

/// The 241 vectors of E8 with a squared norm of at most 2, whole numbers before halves, each in lexicographic order; then the
/// multiples by 2 of the unit vectors and of all but the last of their opposites.
fn shortest() -> Vec<Vector> {
    let (mut whole, mut halves) = (vec![], vec![]);
    for number in 0..3usize.pow(DIM as u32) {
        let vector: Vector = std::array::from_fn(|j| (number / 3usize.pow((DIM - 1 - j) as u32) % 3) as f32 - 1.0);
        let (norm, sum) = vector.iter().fold((0.0, 0.0), |(norm, sum), v| (norm + v * v, sum + v));
        if norm <= 2.0 && sum % 2.0 == 0.0 {
            whole.push(vector);
        }
        // Without zeros it is twice a vector of halves.
        if norm == 8.0 && sum % 4.0 == 0.0 {
            halves.push(vector.map(|v| 0.5 * v));
        }
    }
    let unit = |at: usize, value: f32| std::array::from_fn(|j| if j == at { value } else { 0.0 });
    whole.extend(halves);
    whole.extend((0..DIM).map(|at| unit(at, 2.0)));
    whole.extend((0..DIM - 1).map(|at| unit(at, -2.0)));
    whole
}
