//! Codes that stand for the values of a table: rounding by the boundaries between them, and back.

use super::{BLOCK, GRAIN, check_scales, groups, not_finite};
use crate::error::{expect_len, expect_shape};
use crate::parts::Rows;
use crate::{Error, Machine, Path, Result};
use std::sync::atomic::{AtomicBool, Ordering};

/// `codes`: how many boundaries `x / scale` is above; on a boundary, the even of the two codes.
///
/// `scale` is `[rows, cols / group]`; `bounds`, rising, as many for every row, 1 to 255: those of all rows, or if `by_row`
/// `[rows, _]`. Errors: `Shape` for lengths that do not fit; `Range` for a scale that is not a positive finite number, boundaries
/// that do not rise; `NotFinite` for NaN or infinity in `x` (it is read once: the codes then hold nothing of use).
#[allow(clippy::too_many_arguments)]
pub fn quantize_table(
    m: &Machine,
    x: &[f32],
    rows: usize,
    cols: usize,
    group: usize,
    scale: &[f32],
    bounds: &[f32],
    by_row: bool,
    codes: &mut [u8],
) -> Result<()> {
    let count = groups(cols, group)?;
    expect_shape("x", x.len(), &[rows, cols])?;
    expect_shape("scale", scale.len(), &[rows, count])?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    check_scales(scale)?;
    let tables = Tables::between(bounds, if by_row { rows } else { 1 }, count)?;
    let finite = AtomicBool::new(true);
    m.split_parts(x.len().div_ceil(BLOCK), GRAIN / BLOCK, Rows::new(codes, BLOCK), |range, codes| {
        let start = range.start * BLOCK;
        let codes = codes.all();
        let fine = match m.path() {
            // SAFETY: a machine with this path has AVX2.
            Path::Amx | Path::Avx512 | Path::Avx2 => unsafe { avx2::quantize(x, start, group, scale, &tables, codes) },
            Path::Scalar => portable::quantize(x, start, group, scale, &tables, codes),
        };
        finite.fetch_and(fine, Ordering::Relaxed);
    });
    if finite.into_inner() { Ok(()) } else { Err(not_finite("x", x, cols)) }
}

/// `out = scale * table[codes]`; `scale` is `[rows, cols / group]`, `table` that of all rows, or if `by_row` `[rows, _]`.
///
/// NaN and infinity in `scale` and `table` spread as in any product. Errors: `Shape` for lengths that do not fit, `Range` for a
/// code beyond its table.
#[allow(clippy::too_many_arguments)]
pub fn dequantize_table(
    m: &Machine,
    codes: &[u8],
    rows: usize,
    cols: usize,
    group: usize,
    scale: &[f32],
    table: &[f32],
    by_row: bool,
    out: &mut [f32],
) -> Result<()> {
    let count = groups(cols, group)?;
    expect_shape("codes", codes.len(), &[rows, cols])?;
    expect_shape("scale", scale.len(), &[rows, count])?;
    expect_shape("out", out.len(), &[rows, cols])?;
    let (width, rest) = per(table, if by_row { rows } else { 1 });
    expect_len("table", rest, 0)?;
    // not `max`, of which the compiler makes no vectors
    let largest = codes.iter().fold(0, |largest: u8, &code| largest.max(code));
    if !codes.is_empty() && usize::from(largest) >= width {
        return Err(Error::range("codes", largest, format!("below {width}, the values of a table")));
    }
    m.split_parts(codes.len().div_ceil(BLOCK), GRAIN / BLOCK, Rows::new(out, BLOCK), |range, out| {
        let tables = Tables { values: table, width, groups: if by_row { count } else { usize::MAX } };
        let (start, out) = (range.start * BLOCK, out.all());
        match m.path() {
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a machine with this path has AVX-512.
            Path::Amx | Path::Avx512 => unsafe { avx512::dequantize(codes, start, group, scale, &tables, out) },
            #[cfg(target_arch = "x86_64")]
            // SAFETY: a machine with this path has AVX2.
            Path::Avx2 => unsafe { avx2::dequantize(codes, start, group, scale, &tables, out) },
            _ => portable::dequantize(codes, start, group, scale, &tables, out),
        }
    });
    Ok(())
}

/// Numbers of each table, and those that are left over.
fn per(numbers: &[f32], tables: usize) -> (usize, usize) {
    (numbers.len() / tables.max(1), numbers.len() % tables.max(1))
}

/// One table for all rows, or one for each.
struct Tables<T> {
    values: T,
    /// Numbers of a table.
    width: usize,
    /// Groups of a row, each of which has its table; more than there are where all rows share one.
    groups: usize,
}

impl Tables<Vec<f32>> {
    /// Boundaries, as numbers that are exceeded by what belongs to a higher code; as many as a power of two.
    fn between(bounds: &[f32], tables: usize, groups: usize) -> Result<Self> {
        let (count, rest) = per(bounds, tables);
        if rest > 0 || (tables > 0 && !(1..=255).contains(&count)) {
            return Err(Error::shape("bounds", bounds.len(), format!("1 to 255 for each of {tables} tables")));
        }
        let width = (count + 1).next_power_of_two();
        let mut values = vec![f32::INFINITY; tables * width];
        for (bounds, values) in bounds.chunks_exact(count.max(1)).zip(values.chunks_exact_mut(width)) {
            if !bounds.is_sorted() {
                return Err(Error::range("bounds", "numbers that do not rise, or NaN", "rising numbers"));
            }
            for (code, (bound, value)) in bounds.iter().zip(values).enumerate() {
                *value = if code % 2 == 0 { *bound } else { bound.next_down() };
            }
        }
        Ok(Self { values, width, groups: if tables == 1 { usize::MAX } else { groups } })
    }
}

impl<T: AsRef<[f32]>> Tables<T> {
    /// That of a group.
    #[inline(always)]
    fn of(&self, group: usize) -> &[f32] {
        let row = group / self.groups;
        &self.values.as_ref()[row * self.width..(row + 1) * self.width]
    }
}

mod portable {
    //! Each works on the elements from `start` on, as many as its output holds, whose groups it finds by their place.

    use super::Tables;
    use crate::quantize::{INFINITE, by_group, magnitude};

    /// Boundaries up to which they are all compared, which vectors do side by side.
    const FEW: usize = 16;

    /// Whether all of `x` is finite.
    #[inline(always)]
    pub fn quantize(
        x: &[f32],
        start: usize,
        group: usize,
        scale: &[f32],
        tables: &Tables<Vec<f32>>,
        codes: &mut [u8],
    ) -> bool {
        let mut largest = 0;
        for (g, at) in by_group(start..start + codes.len(), group) {
            let (scale, bounds) = (scale[g], tables.of(g));
            let (x, codes) = (&x[at.clone()], &mut codes[at.start - start..at.end - start]);
            largest = x.iter().fold(largest, |largest, &x| largest.max(magnitude(x)));
            let (eights, rest) = x.as_chunks::<8>();
            let (code_eights, code_rest) = codes.as_chunks_mut::<8>();
            for (x, codes) in eights.iter().zip(code_eights) {
                *codes = above(x.map(|x| x / scale), bounds);
            }
            let mut last = [0.0; 8];
            last[..rest.len()].copy_from_slice(rest);
            code_rest.copy_from_slice(&above(last.map(|x| x / scale), bounds)[..rest.len()]);
        }
        largest < INFINITE
    }

    /// How many boundaries each number is above; there are a power of two.
    #[inline(always)]
    fn above(x: [f32; 8], bounds: &[f32]) -> [u8; 8] {
        let mut above = [0u32; 8];
        if bounds.len() <= FEW {
            for &bound in bounds {
                for (above, x) in above.iter_mut().zip(x) {
                    *above += u32::from(x > bound);
                }
            }
            return above.map(|above| above as u8);
        }
        // halving: each step keeps the lower or the upper half of what is left
        let (mut step, last) = (bounds.len() as u32 / 2, bounds.len() - 1);
        while step > 0 {
            for (above, x) in above.iter_mut().zip(x) {
                let higher = x > bounds[(*above + step - 1) as usize & last];
                *above |= step & u32::from(higher).wrapping_neg();
            }
            step /= 2;
        }
        above.map(|above| above as u8)
    }

    #[inline(always)]
    pub fn dequantize(
        codes: &[u8],
        start: usize,
        group: usize,
        scale: &[f32],
        tables: &Tables<&[f32]>,
        out: &mut [f32],
    ) {
        for (g, at) in by_group(start..start + out.len(), group) {
            let (scale, table) = (scale[g], tables.of(g));
            for (&code, out) in codes[at.clone()].iter().zip(&mut out[at.start - start..at.end - start]) {
                *out = scale * table[usize::from(code)];
            }
        }
    }
}

mod avx2 {
    //! The portable body, compiled to vectors of eight; back by permutations of up to sixteen values.

    use super::{Tables, portable};
    #[cfg(target_arch = "x86_64")]
    use crate::quantize::by_group;
    #[cfg(target_arch = "x86_64")]
    use crate::simd::{load_f32x8, store_f32x8};
    #[cfg(target_arch = "x86_64")]
    use std::arch::x86_64::*;

    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2"))]
    pub unsafe fn quantize(
        x: &[f32],
        start: usize,
        group: usize,
        scale: &[f32],
        tables: &Tables<Vec<f32>>,
        codes: &mut [u8],
    ) -> bool {
        portable::quantize(x, start, group, scale, tables, codes)
    }
    /// Codes are below the width of a table.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    pub fn dequantize(
        codes: &[u8],
        start: usize,
        group: usize,
        scale: &[f32],
        tables: &Tables<&[f32]>,
        out: &mut [f32],
    ) {
        if tables.width > 16 {
            return portable::dequantize(codes, start, group, scale, tables, out);
        }
        for (g, at) in by_group(start..start + out.len(), group) {
            let (scale, mut values) = (scale[g], [[0.0; 8]; 2]);
            values.as_flattened_mut()[..tables.width].copy_from_slice(tables.of(g));
            let [low, high] = [load_f32x8(&values[0]), load_f32x8(&values[1])];
            let (eights, rest) = out[at.start - start..at.end - start].as_chunks_mut::<8>();
            let (codes, last) = codes[at].as_chunks::<8>();
            for (codes, out) in codes.iter().zip(eights) {
                let codes = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(i64::from_le_bytes(*codes)));
                let fourth = _mm256_castsi256_ps(_mm256_slli_epi32::<28>(codes));
                let values = _mm256_blendv_ps(
                    _mm256_permutevar8x32_ps(low, codes),
                    _mm256_permutevar8x32_ps(high, codes),
                    fourth,
                );
                store_f32x8(out, _mm256_mul_ps(_mm256_set1_ps(scale), values));
            }
            for (code, out) in last.iter().zip(rest) {
                *out = scale * values.as_flattened()[usize::from(*code)];
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx512 {
    use super::Tables;
    use crate::quantize::by_group;
    use crate::simd::avx512::Table;
    use crate::simd::{load_u8x16, store_f32x16};
    use std::arch::x86_64::*;

    /// Codes are below the width of a table.
    #[target_feature(enable = "avx2,avx512f")]
    pub fn dequantize(
        codes: &[u8],
        start: usize,
        group: usize,
        scale: &[f32],
        tables: &Tables<&[f32]>,
        out: &mut [f32],
    ) {
        match tables.width {
            0..=16 => with::<4>(codes, start, group, scale, tables, out),
            17..=32 => with::<5>(codes, start, group, scale, tables, out),
            33..=64 => with::<6>(codes, start, group, scale, tables, out),
            _ => with::<8>(codes, start, group, scale, tables, out),
        }
    }

    /// With codes of so many bits.
    #[target_feature(enable = "avx2,avx512f")]
    fn with<const BITS: usize>(
        codes: &[u8],
        start: usize,
        group: usize,
        scale: &[f32],
        tables: &Tables<&[f32]>,
        out: &mut [f32],
    ) {
        let mut before: &[f32] = &[];
        let mut table = Table::of(BITS, before);
        for (g, at) in by_group(start..start + out.len(), group) {
            let (scale, values) = (scale[g], tables.of(g));
            if !std::ptr::eq(before, values) {
                (before, table) = (values, Table::of(BITS, values));
            }
            let (wide, rest) = out[at.start - start..at.end - start].as_chunks_mut::<16>();
            let (codes, last) = codes[at].as_chunks::<16>();
            for (codes, out) in codes.iter().zip(wide) {
                let values = table.values::<BITS>(_mm512_cvtepu8_epi32(load_u8x16(codes)));
                store_f32x16(out, _mm512_mul_ps(_mm512_set1_ps(scale), values));
            }
            for (code, out) in last.iter().zip(rest) {
                *out = scale * values[usize::from(*code)];
            }
        }
    }
}
