//! Hadamard matrices whose order is no power of two, by their classical constructions, built at first use and kept.
//!
//! Those of the released tables of QuIP# and QuaRot (their 40 aside, which stands here as 20 times 2): Williamson's for 52, 116,
//! 124, 156 and 172, else Paley's first over a prime, else his second; where neither leaves a power of two, the same two over the
//! powers of primes. So no order of a prime power takes the place of one that files already lean on: 200 stays the matrix of 400.
//! For what is left, Hartley's matrix of the odd part stands in: of no signs, but as orthogonal, and symmetric.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The largest order that is looked for: beyond it the dense product would cost more than all butterflies.
const LARGEST: usize = 1024;

/// The largest of Hartley's: 64 MiB.
const LARGEST_ODD: usize = 4096;

/// Order, and the first rows of Williamson's four symmetric circulants: bits of order / 4 signs, the highest first, 1 is plus.
const WILLIAMSON: [(usize, [u64; 4]); 5] = [
    (52, [0x14f2, 0x11f8, 0x1a65, 0x1090]),
    (116, [0x192e_f749, 0x1ed1_f8b7, 0x1465_fa62, 0x1c65_0a63]),
    (124, [0x4e90_c25c, 0x4e90_c25c, 0x41d4_cae0, 0x7e2b_351f]),
    (156, [0x72_8261_9053, 0x78_9852_8647, 0x73_4521_28b3, 0x46_a0ed_c158]),
    (172, [0x467_aecd_d798, 0x6fc_29b6_50fd, 0x759_5e85_ea6b, 0x63d_2601_92f1]),
];

/// The order `K` of a matrix here for which `n = K 2^t`: the least of Hadamard matrices over primes, else of the others, else the
/// odd part of `n`; `None` where that is too large.
pub fn order(n: usize) -> Option<usize> {
    if n.is_power_of_two() {
        return Some(1);
    }
    let odd = n.checked_shr(n.trailing_zeros())?;
    let orders = (2..=n.trailing_zeros()).map_while(|twos| odd.checked_mul(1 << twos).filter(|&k| k <= LARGEST));
    let least = |prime| orders.clone().find(|&k| Construction::of(k, prime).is_some());
    least(true).or_else(|| least(false)).or((odd <= LARGEST_ODD).then_some(odd))
}

/// `H [order, order]` with `H H^T = order I`, and entries 1 and -1 unless the order is odd; empty for one that [`order`] does not
/// give.
pub fn matrix(order: usize) -> Arc<[f32]> {
    static BUILT: Mutex<BTreeMap<usize, Arc<[f32]>>> = Mutex::new(BTreeMap::new());
    // Nothing between the locks panics; were one poisoned, what it holds would be whole still.
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let build = || match Construction::of(order, true).or_else(|| Construction::of(order, false)) {
        Some(made) => made.entries(order).map(f32::from).collect(),
        None if order % 2 == 1 && order <= LARGEST_ODD => hartley(order),
        None => Arc::default(),
    };
    built.entry(order).or_insert_with(build).clone()
}

/// `cos t + sin t`, `t = 2 pi i j / order`: entries of at most the root of 2, which rows and columns share evenly.
fn hartley(order: usize) -> Arc<[f32]> {
    let turn = std::f64::consts::TAU / order as f64;
    let values: Vec<_> = (0..order).map(|k| (k as f64 * turn).sin_cos()).map(|(sin, cos)| (cos + sin) as f32).collect();
    (0..order * order).map(|at| values[(at / order) * (at % order) % order]).collect()
}

/// How a matrix is made.
pub(super) enum Construction {
    /// Order `q + 1` for a field of `q` elements, `q` of remainder 3 by 4.
    PaleyOne(Field),
    /// Order `2 (q + 1)` for a `q` of remainder 1.
    PaleyTwo(Field),
    /// First rows of the four blocks.
    Williamson([u64; 4]),
}

impl Construction {
    /// Of an order, over a prime field where `prime`.
    fn of(order: usize, prime: bool) -> Option<Self> {
        if let Some((_, rows)) = WILLIAMSON.iter().find(|(k, _)| *k == order) {
            return Some(Self::Williamson(*rows));
        }
        let field = |q| Field::of(q).filter(|field| field.degree == 1 || !prime);
        let one = (order > 3 && order.is_multiple_of(4)).then(|| field(order - 1)).flatten().map(Self::PaleyOne);
        let two = || (order > 3 && order % 8 == 4).then(|| field(order / 2 - 1)).flatten().map(Self::PaleyTwo);
        one.or_else(two)
    }

    pub(super) fn entries(&self, order: usize) -> impl Iterator<Item = i8> {
        let chi = match self {
            Self::PaleyOne(field) | Self::PaleyTwo(field) => field.differences(),
            Self::Williamson(_) => vec![],
        };
        (0..order * order).map(move |at| self.entry(&chi, order, at / order, at % order))
    }

    /// With `chi` of the differences of the field's elements, which rows and columns count from 1.
    fn entry(&self, chi: &[i8], order: usize, i: usize, j: usize) -> i8 {
        match self {
            Self::PaleyOne(_) if j == 0 => 1,
            Self::PaleyOne(_) if i == 0 => -1,
            Self::PaleyOne(field) => i8::from(i == j) + chi[(i - 1) * field.size + j - 1],
            Self::PaleyTwo(field) => {
                let half = order / 2;
                let (row, col) = (i % half, j % half);
                let symmetric = match (row, col) {
                    (0, 0) => 0,
                    (0, _) | (_, 0) => 1,
                    _ => chi[(row - 1) * field.size + col - 1],
                };
                // [[S + I, S - I], [S - I, -S - I]]
                let (sign, unit) = (if i < half || j < half { 1 } else { -1 }, i8::from(row == col));
                sign * symmetric + if i < half && j < half { unit } else { -unit }
            }
            Self::Williamson(rows) => {
                let side = order / 4;
                let (block, sign) = WILLIAMSON_PATTERN[i / side][j / side];
                let place = (j % side + side - i % side) % side;
                if rows[block] >> (side - 1 - place) & 1 == 1 { sign } else { -sign }
            }
        }
    }
}

/// Which circulant, with which sign, stands in each block.
const WILLIAMSON_PATTERN: [[(usize, i8); 4]; 4] = [
    [(0, 1), (1, 1), (2, 1), (3, 1)],
    [(1, -1), (0, 1), (3, -1), (2, 1)],
    [(2, -1), (3, 1), (0, 1), (1, -1)],
    [(3, -1), (2, -1), (1, 1), (0, 1)],
];

/// A field of `prime^degree` elements, an odd number: polynomials modulo a prime, numbered by their coefficients as digits to that
/// base, the constant one the lowest.
pub(super) struct Field {
    prime: usize,
    degree: u32,
    size: usize,
}

impl Field {
    pub(super) fn of(size: usize) -> Option<Self> {
        if size < 3 || size.is_multiple_of(2) {
            return None;
        }
        let prime = (3..).step_by(2).take_while(|d| d * d <= size).find(|d| size.is_multiple_of(*d)).unwrap_or(size);
        let degree = size.ilog(prime);
        (prime.pow(degree) == size).then_some(Self { prime, degree, size })
    }

    /// One digit after the other, made of those of `a` and `b`.
    fn by_digit(&self, a: usize, b: usize, made: impl Fn(usize, usize) -> usize) -> usize {
        let places = (0..self.degree).map(|k| self.prime.pow(k));
        places.map(|place| made(a / place % self.prime, b / place % self.prime) % self.prime * place).sum()
    }

    /// The powers of `x` from 1 on until 1 comes again, or 0, where `x^degree` is the polynomial `rest`.
    fn powers(&self, rest: usize) -> Vec<usize> {
        let high = self.size / self.prime;
        let next = |&at: &usize| {
            let (top, moved) = (at / high, at % high * self.prime);
            Some(self.by_digit(moved, rest, |moved, rest| moved + top * rest)).filter(|&at| at > 1)
        };
        // A zero divisor may go round without coming to either; its powers are then as many as there are elements, one too many.
        std::iter::successors(Some(1), next).take(self.size).collect()
    }

    /// The quadratic character of each element: 1 for squares, -1 for the others, 0 for 0.
    fn character(&self) -> Vec<i8> {
        // x is a generator where its powers are all elements but 0; this is then a field, and squares are the even powers.
        let generated = (1..self.size).map(|rest| self.powers(rest)).find(|powers| powers.len() == self.size - 1);
        let mut values = vec![0; self.size];
        for (k, element) in generated.unwrap_or_default().into_iter().enumerate() {
            values[element] = if k % 2 == 0 { 1 } else { -1 };
        }
        values
    }

    /// The character of `i - j` for all elements, `[size, size]`.
    fn differences(&self) -> Vec<i8> {
        let (chi, all) = (self.character(), self.size * self.size);
        let minus = |i, j| self.by_digit(i, j, |i, j| i + self.prime - j);
        (0..all).map(|at| chi[minus(at / self.size, at % self.size)]).collect()
    }
}
