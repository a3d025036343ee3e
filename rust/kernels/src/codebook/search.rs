//! The search below everything in this room: for each point the codeword of the least `offset + sum_j point[j] * feature[j]`.
//!
//! Two passes, so that the long one keeps no indices: it leaves for each point the least score and the block of codewords
//! where that was found first; the short one computes that block again and takes the first codeword with that score. The
//! codewords may be all there are or, for each tile of points, the panels that somebody lists.
//! A score is one chain of fused multiplications and additions in the order of `j` on every path: the same bits everywhere.
//! Limit: multiplications.

use crate::parts::Rows;
use crate::{Machine, Path};
use std::ops::Range;

/// Codewords side by side: two vectors of AVX2 or one of AVX-512.
pub(crate) const PANEL: usize = 16;
/// Points of the tallest tile.
pub(crate) const TALLEST: usize = 12;
/// Tiles that meet a block of codewords while it is in the first cache.
const TILES: usize = 32;

/// Points of one task at least: about a tile.
const LEAST: usize = 8;

/// A number of each codeword of a panel: a line of a cache.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(crate) struct Line(pub [f32; PANEL]);

/// A codebook in the order in which the search reads it.
pub(crate) struct Search {
    depth: usize,
    /// For each panel a line of offsets, then one line a feature.
    lines: Vec<Line>,
    /// The numbers of all panels.
    every: Vec<u32>,
}

/// Adds the panels that a tile of points meets.
type List<'a> = dyn Fn(Range<usize>, &mut Vec<u32>) + 'a;

/// The panels that each tile meets.
enum Lists {
    /// All of them.
    Every,
    /// Those up to an end, from the end before.
    Own { ends: Vec<usize>, panels: Vec<u32> },
}

impl Search {
    /// At least one codeword is needed; `offset(k)` and `feature(k, j)` are finite.
    pub fn new(
        count: usize,
        depth: usize,
        offset: impl Fn(usize) -> f32,
        feature: impl Fn(usize, usize) -> f32,
    ) -> Self {
        let mut lines = vec![Line([0.0; PANEL]); count.div_ceil(PANEL) * (depth + 1)];
        for (first, panel) in (0..).step_by(PANEL).zip(lines.chunks_exact_mut(depth + 1)) {
            // Nobody is nearest to the codewords that fill the last panel.
            panel[0] = Line([f32::INFINITY; PANEL]);
            for k in first..count.min(first + PANEL) {
                panel[0].0[k - first] = offset(k);
                for (j, line) in panel[1..].iter_mut().enumerate() {
                    line.0[k - first] = feature(k, j);
                }
            }
        }
        let every = (0..count.div_ceil(PANEL) as u32).collect();
        Self { depth, lines, every }
    }

    fn panel(&self, number: u32) -> &[Line] {
        &self.lines[number as usize * (self.depth + 1)..][..self.depth + 1]
    }

    /// Calls `meet` with every block that a tile meets, its number, and the tile; not where a tile has no more than one.
    #[inline(always)]
    fn blocks(&self, lists: &Lists, tiles: usize, mut meet: impl FnMut(usize, &[u32], usize)) {
        match lists {
            Lists::Every => {
                for (number, block) in Blocks::of(&self.every, self.depth).several() {
                    (0..tiles).for_each(|tile| meet(number, block, tile));
                }
            }
            Lists::Own { .. } => {
                for tile in 0..tiles {
                    let blocks = Blocks::of(lists.get(&self.every, tile), self.depth);
                    blocks.several().for_each(|(number, block)| meet(number, block, tile));
                }
            }
        }
    }

    /// Fills `index` for points whose coordinates are `at(point, j)`.
    pub fn each(&self, m: &Machine, index: &mut [i32], at: impl Fn(usize, usize) -> f32 + Sync) {
        let grain = (1usize << 18).div_ceil((self.lines.len() * PANEL).max(1)).max(LEAST);
        m.split_parts(index.len(), grain, Rows::new(index, 1), |range, index| {
            self.some(m.path(), index.all(), |p, j| at(range.start + p, j));
        });
    }

    /// The same on the caller's thread.
    pub fn some(&self, path: Path, index: &mut [i32], at: impl Fn(usize, usize) -> f32) {
        self.dispatch(path, index, at, None);
    }

    /// The same among some panels alone: for each tile of points those that `panels` adds to an empty list, at least one. In
    /// `index` go the places of codewords.
    pub fn among(
        &self,
        path: Path,
        index: &mut [i32],
        at: impl Fn(usize, usize) -> f32,
        panels: impl Fn(Range<usize>, &mut Vec<u32>),
    ) {
        self.dispatch(path, index, at, Some(&panels));
    }

    fn dispatch(&self, path: Path, index: &mut [i32], at: impl Fn(usize, usize) -> f32, panels: Option<&List<'_>>) {
        match path {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a machine with this path has AVX-512.
            Path::Amx | Path::Avx512 => self.tiles(index, at, panels, |tiles, lists, found, index| unsafe {
                avx512::search(self, tiles, lists, found, index);
            }),
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a machine with this path has AVX2 and FMA.
            Path::Avx2 => self.tiles(index, at, panels, |tiles, lists, found, index| unsafe {
                avx2::search(self, tiles, lists, found, index);
            }),
            _ => self.tiles(index, at, panels, |tiles, lists, _: &mut [Found<1, 1>], index| {
                portable::search(self, tiles, lists, index);
            }),
        }
    }

    /// Calls `search` with some tiles of `H` points, for each coordinate that of all of them, and what is found for each.
    fn tiles<const L: usize, const H: usize>(
        &self,
        index: &mut [i32],
        at: impl Fn(usize, usize) -> f32,
        panels: Option<&List<'_>>,
        search: impl Fn(Tiles<'_, H>, &Lists, &mut [Found<L, H>], &mut [i32]),
    ) {
        let (mut points, mut found) = (vec![[0.0; H]; TILES * self.depth], Vec::with_capacity(TILES));
        let mut lists = if panels.is_some() { Lists::Own { ends: vec![], panels: vec![] } } else { Lists::Every };
        for (first, index) in (0..).step_by(TILES * H).zip(index.chunks_mut(TILES * H)) {
            let tiles = index.len().div_ceil(H);
            let starts = (first..first + index.len()).step_by(H);
            if self.depth > 0 {
                for (tile, start) in points.chunks_exact_mut(self.depth).zip(starts.clone()) {
                    let height = H.min(first + index.len() - start);
                    for p in 0..height {
                        for (j, column) in tile.iter_mut().enumerate() {
                            column[p] = at(start + p, j);
                        }
                    }
                }
            }
            if let (Lists::Own { ends, panels: all }, Some(list)) = (&mut lists, panels) {
                ends.clear();
                all.clear();
                for start in starts {
                    list(start..(first + index.len()).min(start + H), all);
                    ends.push(all.len());
                }
            }
            found.clear();
            found.resize(tiles, Found::NOTHING);
            search(Tiles { points: &points[..tiles * self.depth], depth: self.depth }, &lists, &mut found, index);
        }
    }
}

/// Panels by blocks.
#[derive(Clone, Copy)]
struct Blocks<'a> {
    panels: &'a [u32],
    height: usize,
}

impl<'a> Blocks<'a> {
    /// The second pass costs a block a point, the first some instructions a block: their sum is least at the root.
    fn of(panels: &'a [u32], depth: usize) -> Self {
        let height = ((panels.len() * PANEL) as f64 / (4 * (depth + 1)) as f64).sqrt().round().max(1.0) as usize;
        Self { panels, height }
    }

    fn get(&self, number: usize) -> &'a [u32] {
        &self.panels[number * self.height..self.panels.len().min((number + 1) * self.height)]
    }

    /// All of them, unless there is only one.
    fn several(self) -> impl Iterator<Item = (usize, &'a [u32])> {
        let panels = if self.panels.len() > self.height { self.panels } else { &[] };
        panels.chunks(self.height).enumerate()
    }
}

impl Lists {
    /// The panels of a tile, of `all` that there are.
    fn get<'a>(&'a self, all: &'a [u32], tile: usize) -> &'a [u32] {
        match self {
            Self::Every => all,
            Self::Own { ends, panels } => &panels[if tile == 0 { 0 } else { ends[tile - 1] }..ends[tile]],
        }
    }
}

/// Points by tiles of `H`: of each, the same coordinate of all of them, then the next one.
#[derive(Clone, Copy)]
struct Tiles<'a, const H: usize> {
    points: &'a [[f32; H]],
    depth: usize,
}

impl<'a, const H: usize> Tiles<'a, H> {
    fn get(&self, tile: usize) -> &'a [[f32; H]] {
        &self.points[tile * self.depth..][..self.depth]
    }
}

/// For each point of a tile and each of `L` lanes of codewords the least score, and the block where it was first.
#[derive(Clone, Copy)]
struct Found<const L: usize, const H: usize> {
    low: [[f32; L]; H],
    block: [[i32; L]; H],
}

impl<const L: usize, const H: usize> Found<L, H> {
    const NOTHING: Self = Self { low: [[f32::INFINITY; L]; H], block: [[0; L]; H] };
}

mod portable {
    use super::{Line, Lists, PANEL, Search, Tiles};

    pub fn search(search: &Search, points: Tiles<'_, 1>, lists: &Lists, index: &mut [i32]) {
        for (p, index) in index.iter_mut().enumerate() {
            let mut least = f32::INFINITY;
            for &panel in lists.get(&search.every, p) {
                for (lane, score) in scores(search.panel(panel), points.get(p)).into_iter().enumerate() {
                    if score < least {
                        (least, *index) = (score, (panel as usize * PANEL + lane) as i32);
                    }
                }
            }
        }
    }

    fn scores(lines: &[Line], point: &[[f32; 1]]) -> [f32; PANEL] {
        let mut sums = lines[0].0;
        for (line, [x]) in lines[1..].iter().zip(point) {
            for (sum, feature) in sums.iter_mut().zip(&line.0) {
                *sum = x.mul_add(*feature, *sum);
            }
        }
        sums
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use super::{Blocks, Line, Lists, Search};
    use crate::simd::{load_f32x8, load_i32x8, store_f32x8, store_i32x8};
    use std::arch::x86_64::*;

    /// Points of a tile: twelve sums, two vectors of features and a coordinate fill the 16 registers.
    const HEIGHT: usize = 6;

    type Column = [f32; HEIGHT];
    type Found = super::Found<8, HEIGHT>;

    #[target_feature(enable = "avx2,fma")]
    pub fn search(
        search: &Search,
        points: super::Tiles<'_, HEIGHT>,
        lists: &Lists,
        found: &mut [Found],
        index: &mut [i32],
    ) {
        search.blocks(lists, found.len(), |number, block, tile| {
            sweep(search, block, points.get(tile), number as i32, &mut found[tile]);
        });
        for ((tile, index), found) in index.chunks_mut(HEIGHT).enumerate().zip(&*found) {
            let blocks = Blocks::of(lists.get(&search.every, tile), search.depth);
            for (p, index) in index.iter_mut().enumerate() {
                let block = blocks.get(first(&found.low[p], &found.block[p]));
                *index = locate(search, block, points.get(tile), p) as i32;
            }
        }
    }

    /// The least scores of a block for all points of a tile.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn sweep(search: &Search, block: &[u32], tile: &[Column], number: i32, found: &mut Found) {
        let mut low = [_mm256_set1_ps(f32::INFINITY); HEIGHT];
        for &panel in block {
            let panel = search.panel(panel);
            let [left, right] = halves(&panel[0]);
            let mut sums = [[left, right]; HEIGHT];
            for (line, column) in panel[1..].iter().zip(tile) {
                let [left, right] = halves(line);
                for (sums, x) in sums.iter_mut().zip(column) {
                    let x = _mm256_set1_ps(*x);
                    *sums = [_mm256_fmadd_ps(x, left, sums[0]), _mm256_fmadd_ps(x, right, sums[1])];
                }
            }
            for (low, sums) in low.iter_mut().zip(&sums) {
                *low = _mm256_min_ps(*low, _mm256_min_ps(sums[0], sums[1]));
            }
        }
        let number = _mm256_castsi256_ps(_mm256_set1_epi32(number));
        for ((low, least), at) in low.iter().zip(&mut found.low).zip(&mut found.block) {
            let before = load_f32x8(least);
            let less = _mm256_cmp_ps::<_CMP_LT_OQ>(*low, before);
            let block = _mm256_blendv_ps(_mm256_castsi256_ps(load_i32x8(at)), number, less);
            store_f32x8(least, _mm256_min_ps(*low, before));
            store_i32x8(at, _mm256_castps_si256(block));
        }
    }

    /// The first of the least scores of one point in a block.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn locate(search: &Search, block: &[u32], tile: &[Column], point: usize) -> usize {
        let mut low = [_mm256_set1_ps(f32::INFINITY); 2];
        let mut at = [_mm256_setzero_ps(); 2];
        for &number in block {
            let panel = search.panel(number);
            let mut sums = halves(&panel[0]);
            for (line, column) in panel[1..].iter().zip(tile) {
                let (x, [left, right]) = (_mm256_set1_ps(column[point]), halves(line));
                sums = [_mm256_fmadd_ps(x, left, sums[0]), _mm256_fmadd_ps(x, right, sums[1])];
            }
            let number = _mm256_castsi256_ps(_mm256_set1_epi32(number as i32));
            for ((low, at), sum) in low.iter_mut().zip(&mut at).zip(sums) {
                *at = _mm256_blendv_ps(*at, number, _mm256_cmp_ps::<_CMP_LT_OQ>(sum, *low));
                *low = _mm256_min_ps(sum, *low);
            }
        }
        let lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        let [left, right] = at.map(|at| _mm256_add_epi32(_mm256_slli_epi32::<4>(_mm256_castps_si256(at)), lanes));
        let least = minimum(_mm256_min_ps(low[0], low[1]));
        let right = _mm256_add_epi32(right, _mm256_set1_epi32(8));
        smallest(_mm256_min_epu32(where_least(low[0], least, left), where_least(low[1], least, right)))
    }

    /// The first block with the least score.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn first(low: &[f32; 8], block: &[i32; 8]) -> usize {
        let low = load_f32x8(low);
        smallest(where_least(low, minimum(low), load_i32x8(block)))
    }

    /// The numbers of the lanes that hold `least`, -1 in the others: as an unsigned number the largest.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn where_least(low: __m256, least: __m256, numbers: __m256i) -> __m256i {
        _mm256_or_si256(numbers, _mm256_castps_si256(_mm256_cmp_ps::<_CMP_NEQ_UQ>(low, least)))
    }

    /// The least of all lanes, in all lanes.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn minimum(x: __m256) -> __m256 {
        let x = _mm256_min_ps(x, _mm256_permute2f128_ps::<1>(x, x));
        let x = _mm256_min_ps(x, _mm256_permute_ps::<0b01_00_11_10>(x));
        _mm256_min_ps(x, _mm256_permute_ps::<0b10_11_00_01>(x))
    }

    /// The smallest of eight unsigned numbers.
    #[target_feature(enable = "avx2,fma")]
    #[inline]
    fn smallest(x: __m256i) -> usize {
        let x = _mm_min_epu32(_mm256_castsi256_si128(x), _mm256_extracti128_si256::<1>(x));
        let x = _mm_min_epu32(x, _mm_shuffle_epi32::<0b01_00_11_10>(x));
        _mm_cvtsi128_si32(_mm_min_epu32(x, _mm_shuffle_epi32::<0b10_11_00_01>(x))) as usize
    }

    #[target_feature(enable = "avx2")]
    #[inline]
    fn halves(line: &Line) -> [__m256; 2] {
        let [left, right] = line.0.as_chunks::<8>().0 else { unreachable!("sixteen are two times eight") };
        [load_f32x8(left), load_f32x8(right)]
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::{Blocks, Line, Lists, PANEL, Search, TALLEST};
    use crate::simd::{load_f32x16, load_i32x16, store_f32x16, store_i32x16};
    use std::arch::x86_64::*;

    /// Points of a tile: with two panels 24 sums, two vectors of features and a coordinate of the 32 registers.
    const HEIGHT: usize = TALLEST;
    /// Panels at a time.
    const PAIR: usize = 2;

    type Column = [f32; HEIGHT];
    type Found = super::Found<PANEL, HEIGHT>;

    #[target_feature(enable = "avx512f")]
    pub fn search(
        search: &Search,
        points: super::Tiles<'_, HEIGHT>,
        lists: &Lists,
        found: &mut [Found],
        index: &mut [i32],
    ) {
        search.blocks(lists, found.len(), |number, block, tile| {
            sweep(search, block, points.get(tile), number as i32, &mut found[tile]);
        });
        for ((tile, index), found) in index.chunks_mut(HEIGHT).enumerate().zip(&*found) {
            let blocks = Blocks::of(lists.get(&search.every, tile), search.depth);
            for (p, index) in index.iter_mut().enumerate() {
                let block = blocks.get(first(load_f32x16(&found.low[p]), load_i32x16(&found.block[p])));
                *index = locate(search, block, points.get(tile), p) as i32;
            }
        }
    }

    /// The least scores of a block for all points of a tile.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn sweep(search: &Search, block: &[u32], tile: &[Column], number: i32, found: &mut Found) {
        let mut low = [_mm512_set1_ps(f32::INFINITY); HEIGHT];
        let (pairs, rest) = block.as_chunks::<PAIR>();
        if let [last] = rest {
            lower([search.panel(*last)], tile, &mut low);
        }
        for &[left, right] in pairs {
            lower([search.panel(left), search.panel(right)], tile, &mut low);
        }
        for ((low, least), at) in low.iter().zip(&mut found.low).zip(&mut found.block) {
            let before = load_f32x16(least);
            let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(*low, before);
            store_f32x16(least, _mm512_min_ps(*low, before));
            store_i32x16(at, _mm512_mask_set1_epi32(load_i32x16(at), less, number));
        }
    }

    /// Lowers the least scores to those of some panels.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn lower<const P: usize>(panels: [&[Line]; P], tile: &[Column], low: &mut [__m512; HEIGHT]) {
        let mut sums = [[_mm512_setzero_ps(); P]; HEIGHT];
        for (i, panel) in panels.iter().enumerate() {
            let offset = load_f32x16(&panel[0].0);
            for sums in &mut sums {
                sums[i] = offset;
            }
        }
        for (j, column) in tile.iter().enumerate() {
            let mut features = [_mm512_setzero_ps(); P];
            for (feature, panel) in features.iter_mut().zip(panels) {
                *feature = load_f32x16(&panel[1..=tile.len()][j].0);
            }
            for (sums, x) in sums.iter_mut().zip(column) {
                let x = _mm512_set1_ps(*x);
                for (sum, feature) in sums.iter_mut().zip(features) {
                    *sum = _mm512_fmadd_ps(x, feature, *sum);
                }
            }
        }
        for (low, sums) in low.iter_mut().zip(sums) {
            for sum in sums {
                *low = _mm512_min_ps(*low, sum);
            }
        }
    }

    /// The first of the least scores of one point in a block.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn locate(search: &Search, block: &[u32], tile: &[Column], point: usize) -> usize {
        let (mut low, mut at) = (_mm512_set1_ps(f32::INFINITY), _mm512_setzero_si512());
        for &number in block {
            let panel = search.panel(number);
            let mut sum = load_f32x16(&panel[0].0);
            for (line, column) in panel[1..].iter().zip(tile) {
                sum = _mm512_fmadd_ps(_mm512_set1_ps(column[point]), load_f32x16(&line.0), sum);
            }
            let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(sum, low);
            at = _mm512_mask_set1_epi32(at, less, number as i32);
            low = _mm512_min_ps(sum, low);
        }
        let lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
        first(low, _mm512_add_epi32(_mm512_slli_epi32::<4>(at), lanes))
    }

    /// The smallest of the numbers that belong to the least score.
    #[target_feature(enable = "avx512f")]
    #[inline]
    fn first(low: __m512, numbers: __m512i) -> usize {
        let least = _mm512_set1_ps(_mm512_reduce_min_ps(low));
        let others = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(low, least);
        _mm512_reduce_min_epu32(_mm512_mask_set1_epi32(numbers, others, -1)) as usize
    }
}
