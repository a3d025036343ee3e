//! The nearest codeword of points that have a near one already, as in k-means from its second iteration on: only codewords that
//! may be nearer are met.
//!
//! Neighbouring codewords share a panel, and have a box around them: nothing inside is nearer to a point than the box is. So a
//! tile of points meets a panel only where that is no further from the box around the tile than the furthest of the tile's points
//! from its own codeword; and, where many panels are left, no further from one of the points than that point's own. Tiles are of
//! points with the same codeword, or neighbouring ones. Roundings are allowed for: what is found is nearest by the score of
//! [`Search`]. Limit: the distances to the boxes, and multiplications of the search.

use super::nearest_codeword::half_norm;
use super::search::{Line, PANEL, Search, TALLEST};
use crate::parts::Rows;
use crate::simd::Fused;
use crate::{Machine, Path};
use std::ops::Range;

/// The largest points that are worth it: in more dimensions every box is near.
const DIM: usize = 16;
/// Codewords below which the search meets all of them in as little time.
const FEW: usize = 128;
/// Tiles that are tried before a search.
const TRIED: usize = 32;
/// Of a group of panels, as many must be left by a tile's box for its points to be looked at one by one.
const CROWD: u32 = 6;
/// Points worth a thread.
const GRAIN: usize = 1 << 12;
/// What bounds are raised by, for their own roundings.
const RAISED: f32 = 1.0 + 1e-5;

/// Puts the nearest of the codewords `[count, dim]` in the place of those in `index`, or returns false, and leaves them, where
/// meeting all codewords takes no longer.
pub(super) fn improve(m: &Machine, x: &[f32], codebook: &[f32], dim: usize, index: &mut [i32]) -> bool {
    if !(1..=DIM).contains(&dim) || codebook.len() < FEW * dim || index.len() < TRIED * TALLEST {
        return false;
    }
    let boxes = Boxes::new(codebook, dim);
    let points = boxes.sorted(index);
    let given = Given { x, codebook, index, boxes: &boxes };
    let (mut tried, width) = (vec![], points.len() / TRIED);
    (0..TRIED).for_each(|tile| given.panels(m.path(), &points[tile * width..][..TALLEST], &mut tried));
    if 2 * tried.len() > TRIED * boxes.count {
        return false;
    }
    let mut places = vec![0; points.len()];
    m.split_parts(points.len(), GRAIN, Rows::new(&mut places, 1), |range, places| {
        let points = &points[range];
        let at = |p: usize, j: usize| -x[points[p] as usize * dim + j];
        let panels = |tile: Range<usize>, panels: &mut Vec<u32>| given.panels(m.path(), &points[tile], panels);
        boxes.search.among(m.path(), places.all(), at, panels);
    });
    for (&p, &place) in points.iter().zip(&places) {
        index[p as usize] = boxes.order[place as usize] as i32;
    }
    true
}

/// Codewords by panels of neighbours.
struct Boxes {
    dim: usize,
    /// Panels.
    count: usize,
    /// Which codeword is where.
    order: Vec<u32>,
    search: Search,
    /// For 16 panels a line a coordinate of their least values, then one a coordinate of their largest.
    edges: Vec<Line>,
    /// That of the longest codeword.
    length: f32,
}

impl Boxes {
    fn new(codebook: &[f32], dim: usize) -> Self {
        let word = |k: u32| &codebook[k as usize * dim..][..dim];
        let mut order: Vec<u32> = (0..(codebook.len() / dim) as u32).collect();
        bisect(&mut order, dim, &word);
        let half = |place: usize| half_norm(codebook, dim, order[place] as usize);
        let search = Search::new(order.len(), dim, half, |place, j| word(order[place])[j]);
        let count = order.len().div_ceil(PANEL);
        // Panels that there are not are far from everything.
        let mut edges = vec![Line([f32::MAX; PANEL]); count.div_ceil(PANEL) * 2 * dim];
        for (i, members) in order.chunks(PANEL).enumerate() {
            let (low, high) = edges[i / PANEL * 2 * dim..][..2 * dim].split_at_mut(dim);
            for (j, (low, high)) in low.iter_mut().zip(high).enumerate() {
                let values = members.iter().map(|&k| word(k)[j]);
                (low.0[i % PANEL], high.0[i % PANEL]) =
                    values.fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(value), high.max(value)));
            }
        }
        let length = (0..order.len()).map(half).fold(0.0, f32::max);
        Self { dim, count, order, search, edges, length: (2.0 * length).sqrt() }
    }

    /// Points in the order of their codewords' places.
    fn sorted(&self, index: &[i32]) -> Vec<u32> {
        let mut ends = vec![0u32; self.order.len() + 1];
        let mut places = vec![0u32; self.order.len()];
        for (place, &k) in (0..).zip(&self.order) {
            places[k as usize] = place;
        }
        index.iter().for_each(|&k| ends[places[k as usize] as usize + 1] += 1);
        for i in 1..ends.len() {
            ends[i] += ends[i - 1];
        }
        let mut points = vec![0; index.len()];
        for (p, &k) in (0..).zip(index) {
            let at = &mut ends[places[k as usize] as usize];
            points[*at as usize] = p;
            *at += 1;
        }
        points
    }
}

/// Orders codewords so that each panel's are neighbours: halves along the widest axis, again and again.
fn bisect<'a>(order: &mut [u32], dim: usize, word: &impl Fn(u32) -> &'a [f32]) {
    if order.len() <= PANEL {
        return order.sort_unstable();
    }
    let width = |axis: usize| {
        let values = order.iter().map(|&k| word(k)[axis]);
        let (low, high) = values.fold((f32::MAX, f32::MIN), |(low, high), value| (low.min(value), high.max(value)));
        f64::from(high) - f64::from(low)
    };
    let mut widest = (0, width(0));
    for axis in 1..dim {
        let wide = width(axis);
        if wide > widest.1 {
            widest = (axis, wide);
        }
    }
    let half = (order.len().div_ceil(PANEL) / 2) * PANEL;
    order.select_nth_unstable_by(half, |&a, &b| word(a)[widest.0].total_cmp(&word(b)[widest.0]).then(a.cmp(&b)));
    let (low, high) = order.split_at_mut(half);
    bisect(low, dim, word);
    bisect(high, dim, word);
}

/// What bounds are computed from.
struct Given<'a> {
    x: &'a [f32],
    codebook: &'a [f32],
    /// The codeword of each point so far.
    index: &'a [i32],
    boxes: &'a Boxes,
}

impl Given<'_> {
    /// Adds the panels that one of some points must meet.
    fn panels(&self, path: Path, members: &[u32], panels: &mut Vec<u32>) {
        match path {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a machine with this path has AVX-512.
            Path::Amx | Path::Avx512 => unsafe { avx512::panels(self, members, panels) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a machine with this path has AVX2 and FMA.
            Path::Avx2 => unsafe { avx2::panels(self, members, panels) },
            _ => near::<[f32; PANEL], PANEL>(self, members, panels),
        }
    }
}

#[inline(always)]
fn near<V: Fused<N>, const N: usize>(given: &Given<'_>, members: &[u32], panels: &mut Vec<u32>) {
    let Given { x, codebook, index, boxes } = *given;
    let dim = boxes.dim;
    // The box around all points, and the squares of the distances in which each must look.
    let (mut low, mut high, mut limits, mut furthest) = ([f32::MAX; DIM], [f32::MIN; DIM], [0.0; TALLEST], 0.0);
    for (&p, limit) in members.iter().zip(&mut limits) {
        let (x, own) = (&x[p as usize * dim..][..dim], &codebook[index[p as usize] as usize * dim..][..dim]);
        let (mut square, mut apart) = (0.0, 0.0);
        for j in 0..dim {
            low[j] = low[j].min(x[j]);
            high[j] = high[j].max(x[j]);
            square += x[j] * x[j];
            apart += (x[j] - own[j]) * (x[j] - own[j]);
        }
        // What roundings may add to the distance between two scores, which are halves of squares.
        let size = f32::sqrt(square) + boxes.length;
        let doubt = (dim + 6) as f32 * 2.0 * f32::EPSILON * size * size;
        *limit = (apart + doubt) * RAISED;
        furthest = f32::max(furthest, *limit);
    }
    for (first, edges) in (0..).step_by(PANEL).zip(boxes.edges.chunks_exact(2 * dim)) {
        let mut open = within::<V, N>(edges, &low[..dim], &high[..dim], furthest);
        if open.count_ones() > CROWD {
            let (crowd, mut found) = (open, 0);
            for (&p, &limit) in members.iter().zip(&limits) {
                let x = &x[p as usize * dim..][..dim];
                found |= within::<V, N>(edges, x, x, limit);
                if found & crowd == crowd {
                    break;
                }
            }
            open &= found;
        }
        while open != 0 {
            panels.push(first + open.trailing_zeros());
            open &= open - 1;
        }
    }
}

/// Which of 16 boxes are within the square root of `limit` of the box from `low` to `high`.
#[inline(always)]
fn within<V: Fused<N>, const N: usize>(edges: &[Line], low: &[f32], high: &[f32], limit: f32) -> u32 {
    let (least, largest) = edges.split_at(low.len());
    let (zero, minus) = (V::splat(0.0), V::splat(-1.0));
    let mut open = 0;
    for part in 0..PANEL / N {
        let mut square = zero;
        for ((low, high), (least, largest)) in low.iter().zip(high).zip(least.iter().zip(largest)) {
            let above = V::splat(*high).multiply_add(minus, V::load(&least.0.as_chunks::<N>().0[part]));
            let below = V::load(&largest.0.as_chunks::<N>().0[part]).multiply_add(minus, V::splat(*low));
            let apart = above.max(below).max(zero);
            square = apart.multiply_add(apart, square);
        }
        let beyond = V::splat(limit).below(square);
        open |= (!beyond & ((1 << N) - 1)) << (part * N);
    }
    open
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::Given;
    use crate::simd::avx2::F32x8;

    #[target_feature(enable = "avx2,fma")]
    pub unsafe fn panels(given: &Given<'_>, members: &[u32], panels: &mut Vec<u32>) {
        super::near::<F32x8, 8>(given, members, panels);
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::Given;
    use crate::simd::avx512::F32x16;

    #[target_feature(enable = "avx512f")]
    pub unsafe fn panels(given: &Given<'_>, members: &[u32], panels: &mut Vec<u32>) {
        super::near::<F32x16, 16>(given, members, panels);
    }
}
