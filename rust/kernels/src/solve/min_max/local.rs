//! Local search: from an assignment to one that no single move, or no swap, makes better.

use super::Moves;
use super::row::Row;
use crate::Path;
use crate::random::Random;

/// Moves until nothing more is gained.
pub fn descend(row: &mut Row<'_>, random: &mut Random) {
    match row.problem.search.moves {
        Moves::Swap => swaps(row),
        Moves::Single => _ = singles(row, random),
        Moves::Both => {
            swaps(row);
            while singles(row, random) {
                swaps(row);
            }
        }
    }
}

/// One swap after the other, each the best between two neighbouring levels, until no two levels have any.
fn swaps(row: &mut Row<'_>) {
    let between = row.levels.len() - 1;
    let (mut low, mut idle, mut panel) = (0, 0, vec![]);
    while idle < between {
        match best_swap(row, low as u8, &mut panel) {
            Some((up, down)) => {
                row.swap(up, down);
                idle = 0;
            }
            None => {
                low = (low + 1) % between;
                idle += 1;
            }
        }
    }
}

/// The first single moves that help, in an order drawn once, until none does; whether there were any.
fn singles(row: &mut Row<'_>, random: &mut Random) -> bool {
    let mut order: Vec<u32> = row.free().collect();
    shuffle(&mut order, random);
    let (mut idle, mut any) = (0, false);
    for &j in order.iter().cycle() {
        if idle == order.len() {
            break;
        }
        idle += 1;
        for code in [1, -1].into_iter().filter_map(|by| row.neighbour(j, by)) {
            let (step, bound) = (row.step(j, code), row.size.largest - row.eps);
            if !row.refuses(step, j, None) && row.after(step, j, None, bound).is_some() {
                row.set(j, code);
                (idle, any) = (0, true);
                break;
            }
        }
    }
    any
}

/// Fisher and Yates' order.
pub fn shuffle(order: &mut [u32], random: &mut Random) {
    for i in (1..order.len()).rev() {
        order.swap(i, random.below(i + 1));
    }
}

/// Of the swaps between level `low` and the next that lower the largest residual, and are not refused, the one that
/// lowers it most; of equal ones the first.
fn best_swap(row: &Row<'_>, low: u8, panel: &mut Vec<f32>) -> Option<(u32, u32)> {
    let on = |code: u8| row.free().filter(move |&j| row.codes[j as usize] == code).collect::<Vec<_>>();
    let (ups, downs) = (on(low), on(low + 1));
    if ups.is_empty() || downs.is_empty() {
        return None;
    }
    let step = row.levels[usize::from(low) + 1] - row.levels[usize::from(low)];
    match row.problem.path {
        // SAFETY: a machine with this path has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::best_swap(row, step, &ups, &downs, panel) },
        Path::Scalar => portable::best_swap::<[f32; 8]>(row, step, &ups, &downs, panel),
    }
}

mod portable {
    use super::Row;
    use crate::simd::Lanes;

    /// See the dispatching function of the same name. `panel` is scratch.
    ///
    /// A pair is dropped at the first active constraint that it does not bring below the bound: an exact test, which
    /// only the rest of the constraints can follow. The bound is what the best pair so far comes to.
    #[inline(always)]
    pub fn best_swap<V: Lanes>(
        row: &Row<'_>,
        step: f32,
        ups: &[u32],
        downs: &[u32],
        panel: &mut Vec<f32>,
    ) -> Option<(u32, u32)> {
        let line = |k: u32| &row.problem.a[k as usize * row.problem.cols..][..row.problem.cols];
        // step * a, one line an active constraint, made when the first pair comes so far; NaN is below no bound.
        let width = downs.len().next_multiple_of(8);
        panel.clear();
        let (mut bound, mut best) = (row.size.largest - row.eps, None);
        for &up in ups {
            for group in (0..width).step_by(8) {
                let (mut left, bounds) = (0xff, V::splat(bound));
                for (depth, &k) in row.active.iter().enumerate() {
                    let a = line(k);
                    if panel.len() == depth * width {
                        panel.extend(downs.iter().map(|&down| step * a[down as usize]));
                        panel.resize((depth + 1) * width, f32::NAN);
                    }
                    let lifted = row.gap[k as usize] + step * a[up as usize];
                    let Some(fall) = panel[depth * width + group..].first_chunk() else { break };
                    left &= V::splat(lifted).sub(V::load(fall)).abs().below(bounds);
                    if left == 0 {
                        break;
                    }
                }
                while left != 0 {
                    let lane = left.trailing_zeros() as usize;
                    left &= left - 1;
                    let Some(&down) = downs.get(group + lane) else { break };
                    if row.refuses(step, up, Some(down)) {
                        continue;
                    }
                    if let Some(after) = row.after(step, up, Some(down), bound) {
                        (bound, best) = (after, Some((up, down)));
                    }
                }
            }
        }
        best
    }
}

mod avx2 {
    //! The portable body on registers of eight.

    use super::{Row, portable};
    use crate::simd::avx2::F32x8;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn best_swap(
        row: &Row<'_>,
        step: f32,
        ups: &[u32],
        downs: &[u32],
        panel: &mut Vec<f32>,
    ) -> Option<(u32, u32)> {
        portable::best_swap::<F32x8>(row, step, ups, downs, panel)
    }
}
