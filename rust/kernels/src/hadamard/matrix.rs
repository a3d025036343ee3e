//! Hadamard matrices whose order is no power of two, by their classical constructions, built at first use and kept.
//!
//! Those of the released tables of QuIP# and QuaRot (their 40 aside, which stands here as 20 times 2): Williamson's for 52, 116,
//! 124, 156 and 172, else Paley's first, else his second.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

/// The largest order that is looked for: beyond it the dense product would cost more than all butterflies.
const LARGEST: usize = 1024;

/// Order, and the first rows of Williamson's four symmetric circulants: bits of order / 4 signs, the highest first, 1 is plus.
const WILLIAMSON: [(usize, [u64; 4]); 5] = [
    (52, [0x14f2, 0x11f8, 0x1a65, 0x1090]),
    (116, [0x192e_f749, 0x1ed1_f8b7, 0x1465_fa62, 0x1c65_0a63]),
    (124, [0x4e90_c25c, 0x4e90_c25c, 0x41d4_cae0, 0x7e2b_351f]),
    (156, [0x72_8261_9053, 0x78_9852_8647, 0x73_4521_28b3, 0x46_a0ed_c158]),
    (172, [0x467_aecd_d798, 0x6fc_29b6_50fd, 0x759_5e85_ea6b, 0x63d_2601_92f1]),
];

/// The least order `K` of a matrix here for which `n = K 2^t`; `None` where there is none.
pub fn order(n: usize) -> Option<usize> {
    if n.is_power_of_two() {
        return Some(1);
    }
    let odd = n.checked_shr(n.trailing_zeros())?;
    let orders = (2..=n.trailing_zeros()).map_while(|twos| odd.checked_mul(1 << twos).filter(|&k| k <= LARGEST));
    orders.into_iter().find(|&k| Construction::of(k).is_some())
}

/// `H [order, order]` with entries 1 and -1 and `H H^T = order I`; empty for an order that [`order`] does not give.
pub fn matrix(order: usize) -> Arc<[f32]> {
    static BUILT: Mutex<BTreeMap<usize, Arc<[f32]>>> = Mutex::new(BTreeMap::new());
    // Nothing between the locks panics; were one poisoned, what it holds would be whole still.
    let mut built = BUILT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let build = || Construction::of(order).map_or(Arc::default(), |made| made.entries(order).collect());
    built.entry(order).or_insert_with(build).clone()
}

/// How a matrix is made.
enum Construction {
    /// Order `q + 1` for a prime `q` of remainder 3 by 4.
    PaleyOne(Character),
    /// Order `2 (q + 1)` for a prime `q` of remainder 1.
    PaleyTwo(Character),
    /// First rows of the four blocks.
    Williamson([u64; 4]),
}

impl Construction {
    fn of(order: usize) -> Option<Self> {
        if let Some((_, rows)) = WILLIAMSON.iter().find(|(k, _)| *k == order) {
            return Some(Self::Williamson(*rows));
        }
        let one =
            (order > 3 && order.is_multiple_of(4)).then(|| Character::of(order - 1)).flatten().map(Self::PaleyOne);
        let two = || (order > 3 && order % 8 == 4).then(|| Character::of(order / 2 - 1)).flatten().map(Self::PaleyTwo);
        one.or_else(two)
    }

    fn entries(&self, order: usize) -> impl Iterator<Item = f32> {
        (0..order * order).map(move |at| f32::from(self.entry(order, at / order, at % order)))
    }

    fn entry(&self, order: usize, i: usize, j: usize) -> i8 {
        match self {
            Self::PaleyOne(_) if j == 0 => 1,
            Self::PaleyOne(_) if i == 0 => -1,
            Self::PaleyOne(chi) => i8::from(i == j) + chi.at(i, j),
            Self::PaleyTwo(chi) => {
                let half = order / 2;
                let (row, col) = (i % half, j % half);
                let symmetric = match (row, col) {
                    (0, 0) => 0,
                    (0, _) | (_, 0) => 1,
                    _ => chi.at(row, col),
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

/// The quadratic character of the integers modulo a prime: 1 for squares, -1 for the others, 0 for 0.
struct Character(Vec<i8>);

impl Character {
    fn of(q: usize) -> Option<Self> {
        if q < 3 || (2..q).take_while(|d| d * d <= q).any(|d| q.is_multiple_of(d)) {
            return None;
        }
        let mut values = vec![-1; q];
        values[0] = 0;
        (1..q).for_each(|x| values[x * x % q] = 1);
        Some(Self(values))
    }

    /// Of the difference of two rows, numbered from 1.
    fn at(&self, i: usize, j: usize) -> i8 {
        self.0[(i + self.0.len() - j) % self.0.len()]
    }
}
