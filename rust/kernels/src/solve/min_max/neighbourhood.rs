//! Large neighbourhoods: a few variables are freed, put elsewhere, and the local search goes on from there. What frees and what
//! puts is drawn by how well it did (Ropke and Pisinger, 2006).

use super::local::{descend, shuffle};
use super::row::Row;
use crate::Path;
use crate::random::Random;

/// What an attempt earns that found a better assignment, one as good, or a worse one; the paper's fourth, for one that is
/// better than the current but not than the best, cannot be had where only such are kept as are no worse.
const BETTER: f64 = 5.0;
const KEPT: f64 = 1.0;
const WORSE: f64 = 0.5;
/// Share of its weight that an operator keeps when it earns something.
const DECAY: f64 = 0.7;
/// Of the distance that a variable would have to go to use all that a constraint leaves it.
const RATE: f32 = 0.3;

/// The assignment that the search ends with.
pub fn search<'a>(start: &Row<'a>, random: &mut Random) -> Row<'a> {
    let search = start.problem.search;
    let mut best = start.clone();
    descend(&mut best, random);
    let free: Vec<u32> = best.free().collect();
    let (mut destroy, mut repair) = ([1.0; 2], [1.0; 2]);
    let mut next = best.clone();
    for _ in 0..search.iterations {
        if best.size.largest == 0.0 || free.is_empty() {
            break;
        }
        next.clone_from(&best);
        let (freed, put) = (spin(&destroy, random), spin(&repair, random));
        let wanted = search.share * best.codes.len() as f64;
        let mut places = match freed {
            0 => (0..(wanted as usize).max(1)).map(|_| free[random.below(free.len())]).collect(),
            _ => worst(&best, &free, (wanted.ceil() as usize).max(1), random),
        };
        match put {
            0 => scatter(&mut next, &places, random),
            _ => {
                shuffle(&mut places, random);
                greedy(&mut next, &places);
            }
        }
        descend(&mut next, random);
        let kept = next.size.largest <= best.size.largest && !(search.guard && next.risen > best.risen);
        let score = match next.size.largest < best.size.largest {
            true if kept => BETTER,
            false if kept => KEPT,
            _ => WORSE,
        };
        for weight in [&mut destroy[freed], &mut repair[put]] {
            *weight = DECAY * *weight + (1.0 - DECAY) * score;
        }
        if kept {
            std::mem::swap(&mut best, &mut next);
        }
    }
    best
}

/// An operator, with the chances of its weight.
fn spin(weights: &[f64; 2], random: &mut Random) -> usize {
    usize::from(random.unit() * (weights[0] + weights[1]) >= weights[0])
}

/// Different variables, drawn with the chances of their [`score`].
fn worst(row: &Row<'_>, free: &[u32], count: usize, random: &mut Random) -> Vec<u32> {
    let scores = score(row);
    let mut chances: Vec<f64> = free.iter().map(|&j| f64::from(scores[j as usize])).collect();
    let mut places = Vec::with_capacity(count);
    while places.len() < count.min(free.len()) {
        let mut target = random.unit() * chances.iter().sum::<f64>();
        let drawn = chances.iter().position(|&chance| {
            let here = target < chance;
            target -= chance;
            here
        });
        // Where no score is above 0, any variable will do.
        let at = drawn.unwrap_or_else(|| random.below(free.len()));
        if places.contains(&free[at]) {
            continue;
        }
        places.push(free[at]);
        chances[at] = 0.0;
    }
    places
}

/// How near each variable is to using up what active constraints leave: their `|gap| exp(-0.3 d)`, summed; `d` is the
/// distance `(largest - |gap|) / |a|` that it would have to go, or its own size where it does not enter.
fn score(row: &Row<'_>) -> Vec<f32> {
    match row.problem.path {
        // SAFETY: a machine with this path has AVX2.
        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::score(row) },
        Path::Scalar => portable::score::<[f32; 8]>(row),
    }
}

/// Each place up a level, down a level, or left as it is.
fn scatter(row: &mut Row<'_>, places: &[u32], random: &mut Random) {
    for &j in places {
        let by = random.below(3) as i32 - 1;
        if let Some(code) = row.neighbour(j, by).filter(|_| by != 0) {
            row.set(j, code);
        }
    }
}

/// Each place, in turn, to the better of the levels next to its own, unless both raise the largest residual.
fn greedy(row: &mut Row<'_>, places: &[u32]) {
    for &j in places {
        let mut best: Option<(f32, u8)> = None;
        for code in [-1, 1].into_iter().filter_map(|by| row.neighbour(j, by)) {
            let bound = best.map_or(row.size.largest.next_up(), |(after, _)| after);
            if let Some(after) = row.after(row.step(j, code), j, None, bound) {
                best = Some((after, code));
            }
        }
        if let Some((_, code)) = best {
            row.set(j, code);
        }
    }
}

mod portable {
    use super::{RATE, Row};
    use crate::simd::{Lanes, exp2};

    /// See the dispatching function of the same name.
    #[inline(always)]
    pub fn score<V: Lanes>(row: &Row<'_>) -> Vec<f32> {
        let cols = row.problem.cols;
        let mut scores = vec![0.0; cols.next_multiple_of(8)];
        let mut own = vec![0.0; scores.len()];
        own.iter_mut().zip(&row.codes).for_each(|(x, &code)| *x = row.levels[usize::from(code)].abs());
        let rate = V::splat(-RATE * std::f32::consts::LOG2_E);
        for &k in &row.active {
            let gap = row.gap[k as usize].abs();
            let (left, weight) = (row.size.largest - gap, V::splat(gap));
            let line = row.problem.a[k as usize * cols..][..cols].chunks(8);
            for ((line, own), scores) in line.zip(own.as_chunks::<8>().0).zip(scores.as_chunks_mut::<8>().0) {
                let mut distance = *own;
                for (distance, a) in distance.iter_mut().zip(line) {
                    *distance = if *a == 0.0 { *distance } else { left / a.abs() };
                }
                let near = exp2(rate.mul(V::load(&distance)));
                *scores = V::load(scores).add(weight.mul(near)).array();
            }
        }
        scores
    }
}

mod avx2 {
    //! The portable body on registers of eight.

    use super::{Row, portable};
    use crate::simd::avx2::F32x8;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn score(row: &Row<'_>) -> Vec<f32> {
        portable::score::<F32x8>(row)
    }
}
