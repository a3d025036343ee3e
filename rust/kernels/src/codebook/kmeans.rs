//! kmeans: Lloyd's iterations with weights. Limit: the multiplications of the search; all else is a few passes over the points.
//!
//! Sums are taken in the order of the points, by whoever owns the centroid: no result depends on the number of threads.

use super::bounds::improve;
use super::nearest_codeword::{Metric, assign, expect_moderate, measure};
use crate::error::expect_shape;
use crate::parts::Rows;
use crate::random::Random;
use crate::{Error, Machine, Path, Result};

/// Where the centroids start.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Start<'a> {
    /// Different points, drawn with equal chances.
    Random,
    /// Points drawn with chances of their cost so far: k-means++ (Arthur and Vassilvitskii, 2007), for more than 128 centroids
    /// a 128th of them between two updates of the costs.
    PlusPlus,
    /// These, `[k, dim]`.
    Given(&'a [f32]),
}

/// How to start and when to stop.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options<'a> {
    /// Where the centroids start.
    pub start: Start<'a>,
    /// What the draws depend on.
    pub seed: u64,
    /// Stop where an iteration lowers the inertia by no more than this fraction of it.
    pub tolerance: f64,
}

/// Updates of the costs while centroids are drawn.
const ROUNDS: usize = 128;
/// Centroids of one task.
const TASK: usize = 32;
/// Costs that are lowered, summed, and searched at a time.
const STRIDE: usize = 1024;
/// Distances worth a thread, times coordinates.
const GRAIN: usize = 1 << 17;

/// Centroids `[k, dim]` of the rows of `x` `[points, dim]`, the index of each row's nearest, and the weighted sum of squared
/// distances at the start and after each of `inertia.len() - 1` iterations; once it stops, the last one repeats.
///
/// `weights`: one a point, or one an element, 0 or more. A centroid without points moves to the costliest point of those that
/// share theirs; without any weight (in one dimension) it keeps its place. `index` and `inertia` are of the returned centroids.
///
/// Errors: `Range` for `k` outside 1 to `points`, a negative weight or tolerance, numbers whose squares overflow; `NotFinite`.
#[allow(clippy::too_many_arguments)]
pub fn kmeans(
    m: &Machine,
    x: &[f32],
    weights: Option<&[f32]>,
    points: usize,
    dim: usize,
    k: usize,
    options: Options<'_>,
    centroids: &mut [f32],
    index: &mut [i32],
    inertia: &mut [f32],
) -> Result<()> {
    expect_shape("x", x.len(), &[points, dim])?;
    expect_shape("centroids", centroids.len(), &[k, dim])?;
    expect_shape("index", index.len(), &[points])?;
    if k == 0 || k > points || i32::try_from(points).is_err() {
        return Err(Error::range("k", k, format!("1 to {} points", points.min(i32::MAX as usize))));
    }
    if dim == 0 {
        return Err(Error::range("dim", 0, "1 or more"));
    }
    if options.tolerance.is_nan() || options.tolerance < 0.0 {
        return Err(Error::range("tolerance", options.tolerance, "0 or more"));
    }
    if inertia.is_empty() {
        return Err(Error::shape("inertia", 0, "one number more than iterations"));
    }
    let job = Job { m, x, weights: Weights::of(weights, points, dim)?, dim };
    let width = weights.map_or(1, |weights| weights.len() / points);
    expect_moderate(x, x, weights, dim, width)?;
    match options.start {
        Start::Given(start) => {
            expect_shape("start", start.len(), &[k, dim])?;
            expect_moderate(x, start, weights, dim, width)?;
            centroids.copy_from_slice(start);
        }
        Start::Random => job.copy(&job.random(k, options.seed), centroids),
        Start::PlusPlus => job.copy(&job.plus_plus(k, options.seed), centroids),
    }
    let mut costs = vec![0.0; points];
    let mut last = job.assign(centroids, index, &mut costs, false);
    let (first, rest) = inertia.split_at_mut(1);
    first[0] = last as f32;
    let mut before = vec![-1; points];
    for (i, step) in rest.iter_mut().enumerate() {
        before.copy_from_slice(index);
        job.update(index, &costs, centroids);
        let now = job.assign(centroids, index, &mut costs, true);
        *step = now as f32;
        if before == index || last - now <= options.tolerance * last {
            rest[i..].fill(now as f32);
            break;
        }
        last = now;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Weights<'a> {
    None,
    Points(&'a [f32]),
    Elements(&'a [f32]),
}

impl<'a> Weights<'a> {
    fn of(weights: Option<&'a [f32]>, points: usize, dim: usize) -> Result<Self> {
        match weights {
            None => Ok(Self::None),
            Some(weights) if weights.len() == points && dim != 1 => Ok(Self::Points(weights)),
            Some(weights) => {
                expect_shape("weights", weights.len(), &[points, dim])?;
                Ok(Self::Elements(weights))
            }
        }
    }
}

struct Job<'a> {
    m: &'a Machine,
    x: &'a [f32],
    weights: Weights<'a>,
    dim: usize,
}

impl Job<'_> {
    fn point(&self, p: usize) -> &[f32] {
        &self.x[p * self.dim..][..self.dim]
    }

    fn copy(&self, chosen: &[usize], centroids: &mut [f32]) {
        for (&p, centroid) in chosen.iter().zip(centroids.chunks_exact_mut(self.dim)) {
            centroid.copy_from_slice(self.point(p));
        }
    }

    /// The nearest centroid and the cost of each point; returns the sum of the costs. `near`: `index`
    /// holds near ones already.
    fn assign(&self, centroids: &[f32], index: &mut [i32], costs: &mut [f32], near: bool) -> f64 {
        let elements = match self.weights {
            Weights::Elements(weights) => Some(weights),
            Weights::None | Weights::Points(_) => None,
        };
        // With weights for each element no two points mean the same by near.
        if elements.is_some() || !near || !improve(self.m, self.x, centroids, self.dim, index) {
            assign(self.m, self.x, centroids, elements, Metric::L2, self.dim, index);
        }
        measure(self.m, self.x, centroids, elements, Metric::L2, self.dim, index, costs);
        if let Weights::Points(weights) = self.weights {
            costs.iter_mut().zip(weights).for_each(|(cost, weight)| *cost *= weight);
        }
        costs.iter().map(|&cost| f64::from(cost)).sum()
    }

    /// Moves every centroid to the weighted mean of its points.
    fn update(&self, index: &mut [i32], costs: &[f32], centroids: &mut [f32]) {
        let k = centroids.len() / self.dim;
        let mut counts = vec![0usize; k];
        index.iter().for_each(|&c| counts[c as usize] += 1);
        self.fill_empty(index, costs, &mut counts);
        // Points by centroid, each centroid's in their order.
        let mut ends: Vec<usize> = Vec::with_capacity(k);
        let mut next: Vec<usize> = Vec::with_capacity(k);
        for &count in &counts {
            let start = ends.last().copied().unwrap_or(0);
            next.push(start);
            ends.push(start + count);
        }
        let mut order = vec![0u32; index.len()];
        for (p, &c) in index.iter().enumerate() {
            let at = &mut next[c as usize];
            order[*at] = p as u32;
            *at += 1;
        }
        let tasks = centroids.chunks_mut(TASK * self.dim).enumerate().collect();
        self.m.each(tasks, |(task, centroids): (usize, &mut [f32])| {
            let mut sums = vec![[0.0; 2]; self.dim];
            for (c, centroid) in (task * TASK..).zip(centroids.chunks_exact_mut(self.dim)) {
                sums.fill([0.0; 2]);
                for &p in &order[ends[c] - counts[c]..ends[c]] {
                    self.add(p as usize, &mut sums);
                }
                for (value, [sum, weight]) in centroid.iter_mut().zip(&sums) {
                    if *weight > 0.0 {
                        *value = (sum / weight) as f32;
                    }
                }
            }
        });
    }

    /// Adds a point, and its weights, to the sums of its centroid.
    fn add(&self, p: usize, sums: &mut [[f64; 2]]) {
        let each = sums.iter_mut().zip(self.point(p));
        match self.weights {
            Weights::None => each.for_each(|(sum, &x)| *sum = [sum[0] + f64::from(x), sum[1] + 1.0]),
            Weights::Points(weights) => {
                let w = f64::from(weights[p]);
                each.for_each(|(sum, &x)| *sum = [sum[0] + w * f64::from(x), sum[1] + w]);
            }
            Weights::Elements(weights) => {
                for ((sum, &x), &w) in each.zip(&weights[p * self.dim..]) {
                    *sum = [sum[0] + f64::from(w) * f64::from(x), sum[1] + f64::from(w)];
                }
            }
        }
    }

    /// Gives each centroid without points the costliest point of a centroid that keeps another.
    fn fill_empty(&self, index: &mut [i32], costs: &[f32], counts: &mut [usize]) {
        let empty: Vec<usize> = (0..counts.len()).filter(|&c| counts[c] == 0).collect();
        if empty.is_empty() {
            return;
        }
        let mut costly: Vec<usize> = (0..costs.len()).filter(|&p| costs[p] > 0.0).collect();
        costly.sort_unstable_by(|&p, &q| costs[q].total_cmp(&costs[p]).then(p.cmp(&q)));
        let mut costly = costly.into_iter();
        for c in empty {
            let Some(p) = costly.find(|&p| counts[index[p] as usize] > 1) else { return };
            counts[index[p] as usize] -= 1;
            (index[p], counts[c]) = (c as i32, 1);
        }
    }

    fn random(&self, k: usize, seed: u64) -> Vec<usize> {
        let (mut random, mut points) = (Random(seed), (0..self.x.len() / self.dim).collect::<Vec<_>>());
        for i in 0..k {
            let other = i + random.below(points.len() - i);
            points.swap(i, other);
        }
        points.truncate(k);
        points
    }

    fn plus_plus(&self, k: usize, seed: u64) -> Vec<usize> {
        let (count, mut random) = (self.x.len() / self.dim, Random(seed));
        let batch = k.div_ceil(ROUNDS);
        let (mut chosen, mut taken) = (Vec::with_capacity(k), vec![false; count]);
        let columns = self.columns(self.x);
        let weights = match self.weights {
            Weights::None => vec![1.0; count],
            Weights::Points(weights) => weights.to_vec(),
            Weights::Elements(weights) => self.columns(weights),
        };
        // The first is drawn by weight alone.
        let mut costs: Vec<f32> = (0..count).map(|p| self.weight(p)).collect();
        let mut sums: Vec<f64> = costs.chunks(STRIDE).map(total).collect();
        let mut centroids = Vec::with_capacity(batch * self.dim);
        while chosen.len() < k {
            let all = sums.iter().sum::<f64>();
            let wanted = if chosen.is_empty() { 1 } else { batch.min(k - chosen.len()) };
            let from = chosen.len();
            for _ in 0..wanted {
                let p = draw(&costs, &sums, all * random.unit());
                // One that this batch has already: the next that costs; where none does, the first that is free.
                let free = (p..count).chain(0..p).find(|&p| !taken[p] && costs[p] > 0.0);
                let Some(p) = free.or_else(|| (0..count).find(|&p| !taken[p])) else { break };
                taken[p] = true;
                chosen.push(p);
            }
            if from == 0 {
                costs.fill(f32::INFINITY);
            }
            centroids.clear();
            chosen[from..].iter().for_each(|&p| centroids.extend_from_slice(self.point(p)));
            let grain = GRAIN.div_ceil(STRIDE * centroids.len());
            let outputs = (Rows::new(&mut costs, STRIDE), Rows::new(&mut sums, 1));
            self.m.split_parts(count.div_ceil(STRIDE), grain, outputs, |range, (costs, sums)| {
                for ((stride, costs), sum) in range.zip(costs.all().chunks_mut(STRIDE)).zip(sums.all()) {
                    let x = &columns[stride * STRIDE * self.dim..][..STRIDE * self.dim];
                    let each = matches!(self.weights, Weights::Elements(_));
                    let width = if each { self.dim } else { 1 };
                    let from = stride * STRIDE * width;
                    let weights = &weights[from..weights.len().min(from + STRIDE * width)];
                    match self.m.path() {
                        // SAFETY: a machine with this path has AVX2.
                        Path::Amx | Path::Avx512 | Path::Avx2 => unsafe {
                            avx2::lower(x, weights, &centroids, costs, each)
                        },
                        Path::Scalar => portable::lower(x, weights, &centroids, costs, each),
                    }
                    *sum = total(costs);
                }
            });
        }
        chosen
    }

    /// Numbers `[points, dim]` by strides of points, in each one coordinate after the other; zeros fill the last.
    fn columns(&self, values: &[f32]) -> Vec<f32> {
        let mut columns = vec![0.0; values.len().div_ceil(STRIDE * self.dim) * STRIDE * self.dim];
        let strides = columns.chunks_exact_mut(STRIDE * self.dim).zip(values.chunks(STRIDE * self.dim));
        for (columns, values) in strides {
            for (j, column) in columns.chunks_exact_mut(STRIDE).enumerate() {
                column.iter_mut().zip(values.chunks_exact(self.dim)).for_each(|(to, value)| *to = value[j]);
            }
        }
        columns
    }

    fn weight(&self, p: usize) -> f32 {
        match self.weights {
            Weights::None => 1.0,
            Weights::Points(weights) => weights[p],
            Weights::Elements(weights) => weights[p * self.dim..][..self.dim].iter().sum(),
        }
    }
}

fn total(costs: &[f32]) -> f64 {
    costs.iter().map(|&cost| f64::from(cost)).sum()
}

/// The first item up to which the costs sum beyond `target`; `sums` are those of strides.
fn draw(costs: &[f32], sums: &[f64], mut target: f64) -> usize {
    for (sum, (stride, costs)) in sums.iter().zip(costs.chunks(STRIDE).enumerate()) {
        if target < *sum {
            for (i, &cost) in costs.iter().enumerate() {
                if target < f64::from(cost) {
                    return stride * STRIDE + i;
                }
                target -= f64::from(cost);
            }
        }
        target -= sum;
    }
    0
}

mod portable {
    use super::STRIDE;

    /// Points side by side.
    const LANES: usize = 16;

    /// Lowers the costs of points to those beside some centroids; `x` is a stride of [`super::Job::columns`], and so are `weights`
    /// where there is one for `each` element.
    #[inline(always)]
    pub fn lower(x: &[f32], weights: &[f32], centroids: &[f32], costs: &mut [f32], each: bool) {
        for (start, costs) in (0..).step_by(LANES).zip(costs.chunks_mut(LANES)) {
            let (mut least, mut weight) = ([0.0; LANES], [1.0; LANES]);
            least[..costs.len()].copy_from_slice(costs);
            if !each {
                weight[..costs.len()].copy_from_slice(&weights[start..start + costs.len()]);
            }
            for centroid in centroids.chunks_exact(x.len() / STRIDE) {
                let mut sum = [0.0; LANES];
                for (j, c) in centroid.iter().enumerate() {
                    let x = &x[j * STRIDE + start..][..LANES];
                    if each {
                        let weight = &weights[j * STRIDE + start..][..LANES];
                        for i in 0..LANES {
                            sum[i] += weight[i] * ((x[i] - c) * (x[i] - c));
                        }
                    } else {
                        for i in 0..LANES {
                            sum[i] += (x[i] - c) * (x[i] - c);
                        }
                    }
                }
                for i in 0..LANES {
                    let cost = weight[i] * sum[i];
                    least[i] = if cost < least[i] { cost } else { least[i] };
                }
            }
            costs.copy_from_slice(&least[..costs.len()]);
        }
    }
}

mod avx2 {
    //! The portable body, compiled to vectors of eight.

    use super::portable;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn lower(x: &[f32], weights: &[f32], centroids: &[f32], costs: &mut [f32], each: bool) {
        portable::lower(x, weights, centroids, costs, each);
    }
}
