//! Screened heads: what is listed is exact, and what is missing does not matter.

use proptest::prelude::*;
use sparse_core::{
    Activations, Axes, Compute, Margins, Matrix, Reach, Screen, ScreenScratch, Storage, Wanted, soft_cap,
};
use sparse_simd::BlockFormat;
use sparse_testdata::Weights;

const COLS: usize = 256;

fn head(format: BlockFormat, rows: usize, stream: u64) -> Matrix {
    let mut bytes = vec![0; rows * format.row_bytes(COLS).unwrap()];
    Weights::new(format, 0.0, 0.1, 4, stream).fill(&mut bytes);
    Matrix::new(format, COLS, Storage::Owned(bytes)).unwrap()
}

/// A token that leans toward row `r`, as far as `lean` says.
fn token(compute: &Compute, head: &Matrix, r: usize, lean: f32, stream: u64) -> Activations {
    let mut row = vec![0.0; COLS];
    head.decode_row(r, &mut row);
    let mut noise = vec![0; COLS * 4];
    Weights::new(BlockFormat::F32, 0.0, 1.0, 5, stream).fill(&mut noise);
    let noise = noise.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    let mut x = Activations::with_capacity(1, COLS);
    x.resize(1);
    x.x_mut().iter_mut().zip(row.iter().zip(noise)).for_each(|(x, (w, n))| *x = lean * w + n);
    x.quantize(compute.kernels);
    x
}

fn full(compute: &Compute, head: &Matrix, x: &Activations) -> Vec<f32> {
    let mut logits = vec![0.0; head.rows()];
    head.matmul(compute, x, &mut logits);
    logits
}

fn random(compute: &Compute, head: &Matrix, margin: f32) -> Screen {
    Screen::new(compute, head, Axes::rotated(COLS, 1.0), None, Margins { best: margin, mass: margin })
        .unwrap()
}

/// The rows in order of their logits, best first, lowest first among equals.
fn order(logits: &[f32]) -> Vec<u32> {
    let mut order: Vec<u32> = (0..logits.len() as u32).collect();
    order.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    order
}

fn best(adjust: &dyn Fn(u32, f32) -> f32) -> Wanted<'_> {
    Wanted { reach: Reach::Best, cap: None, adjust }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn lists_are_exact_and_hold_the_best(
        format in proptest::sample::select(BlockFormat::ALL.to_vec()),
        rows in 300_usize..2000,
        threads in 1_usize..3,
        lean in 5_f32..60.0,
        stream: u16,
    ) {
        let compute = Compute::new(threads);
        let head = head(format, rows, stream.into());
        // Twelve deviations: nothing is missed by chance.
        let screen = random(&compute, &head, 12.0);
        let mut scratch = ScreenScratch::new(&screen);
        for t in 0..4 {
            let x = token(&compute, &head, t * 71 % rows, lean, t as u64);
            let logits = full(&compute, &head, &x);
            let order = order(&logits);
            for reach in [Reach::Best, Reach::Top(5), Reach::Within(1.0)] {
                let list = screen.shortlist(&compute, &head, &x, &Wanted::plain(reach), &mut scratch);
                let Some(list) = list else { continue };
                prop_assert!(list.ids.is_sorted() && list.ids.len() == list.logits.len());
                for (id, logit) in list.ids.iter().zip(list.logits) {
                    prop_assert_eq!(logit.to_bits(), logits[*id as usize].to_bits(), "{:?} row {}", reach, id);
                }
                let best = logits[order[0] as usize];
                let wanted = match reach {
                    Reach::Best => 1,
                    Reach::Top(k) => k,
                    Reach::Within(d) => order.iter().take_while(|i| logits[**i as usize] >= best - d).count(),
                    Reach::Mass(_) => unreachable!("not asked for"),
                };
                for id in &order[..wanted] {
                    prop_assert!(list.ids.binary_search(id).is_ok(), "{:?} {} misses {}", reach, format.name(), id);
                }
            }
        }
    }
}

#[test]
fn lists_are_short_for_clear_tokens_and_refused_for_unclear_ones() {
    let compute = Compute::new(1);
    let head = head(BlockFormat::Q8_0, 4000, 3);
    let screen = random(&compute, &head, 5.0);
    let mut scratch = ScreenScratch::new(&screen);
    let mut list = |lean, reach| {
        let x = token(&compute, &head, 77, lean, 9);
        let list = screen.shortlist(&compute, &head, &x, &Wanted::plain(reach), &mut scratch);
        list.map(|list| (list.ids.len(), list.ids.binary_search(&77).is_ok()))
    };
    let (rows, there) = list(60.0, Reach::Best).expect("a clear token");
    assert!(rows < 200 && there, "{rows}");
    // Too many are asked for, or none stands out.
    assert_eq!(list(60.0, Reach::Within(1000.0)), None);
    assert_eq!(list(60.0, Reach::Top(3000)), None);
    assert_eq!(list(60.0, Reach::Top(0)), None);
    // Probabilities are not told along random axes.
    assert_eq!(list(60.0, Reach::Mass(0.5)), None);
}

/// A token that is `inside` times a normal one along the first 64 dimensions, and `outside` times one elsewhere.
fn scaled(compute: &Compute, inside: f32, outside: f32) -> Activations {
    let mut noise = vec![0; COLS * 4];
    Weights::new(BlockFormat::F32, 0.0, 1.0, 6, 21).fill(&mut noise);
    let noise = noise.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b));
    let mut x = Activations::with_capacity(1, COLS);
    x.resize(1);
    let scale = |i: usize| if i < 64 { inside } else { outside };
    x.x_mut().iter_mut().zip(noise).enumerate().for_each(|(i, (x, n))| *x = scale(i) * n);
    x.quantize(compute.kernels);
    x
}

#[test]
fn what_tokens_have_along_the_axes_and_outside_them_makes_scores_uncertain() {
    let compute = Compute::new(1);
    let head = head(BlockFormat::F32, 300, 9);
    let directions =
        Matrix::from_f32(COLS, (0..64 * COLS).map(|i| f32::from(u8::from(i % COLS == i / COLS)))).unwrap();
    // Ordinary tokens have variance 1 along each dimension.
    let lost = ((COLS - 64) as f32).sqrt();
    let axes = Axes::new(directions, vec![0.0; COLS], vec![1.0; 64], lost, 32).unwrap();
    let screen = Screen::new(&compute, &head, axes, None, Margins::default()).unwrap();
    let mut scratch = ScreenScratch::new(&screen);
    // By how much the logit of a row may be off for each unit of the margin.
    let mut off = |inside, outside| {
        let x = scaled(&compute, inside, outside);
        let mut margin = |logit| screen.margin_of(&compute, &x, 7, logit, &mut scratch).unwrap();
        1000.0 / (margin(1000.0) - margin(0.0))
    };
    let ordinary = off(1.0, 1.0);
    // The fourth root of the squares: nearly all of the error comes from outside, some of it from rounding.
    let (outside, inside) = (off(1.0, 16.0) / ordinary, off(16.0, 1.0) / ordinary);
    assert!((3.5..4.2).contains(&outside), "{outside}");
    assert!((1.2..2.5).contains(&inside), "{inside}");
    assert!((off(16.0, 16.0) / ordinary - 4.0).abs() < 0.2);
}

#[test]
fn what_rows_are_said_to_have_outside_the_axes_makes_their_scores_uncertain() {
    let compute = Compute::new(1);
    let head = head(BlockFormat::F32, 300, 9);
    let off = |of_row: f32| {
        let directions =
            Matrix::from_f32(COLS, (0..64 * COLS).map(|i| f32::from(u8::from(i % COLS == i / COLS))));
        let axes = Axes::new(directions.unwrap(), vec![0.0; COLS], vec![1.0; 64], 1.0, 32).unwrap();
        let lost: Vec<f32> = (0..300).map(|r| if r == 7 { of_row } else { 1.0 }).collect();
        let screen = Screen::new(&compute, &head, axes, Some(&lost), Margins::default()).unwrap();
        let mut scratch = ScreenScratch::new(&screen);
        let x = scaled(&compute, 1.0, 1.0);
        let mut margin = |logit| screen.margin_of(&compute, &x, 7, logit, &mut scratch).unwrap();
        1000.0 / (margin(1000.0) - margin(0.0))
    };
    let ratio = off(6.0) / off(3.0);
    assert!((1.7..2.1).contains(&ratio), "{ratio}");
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let head = head(BlockFormat::Q4_0, 3000, 4);
    let run = |threads| {
        let compute = Compute::new(threads);
        let screen = random(&compute, &head, 4.0);
        let mut scratch = ScreenScratch::new(&screen);
        let x = token(&compute, &head, 5, 40.0, 1);
        let list =
            screen.shortlist(&compute, &head, &x, &Wanted::plain(Reach::Top(10)), &mut scratch).unwrap();
        (list.ids.to_vec(), list.logits.to_vec())
    };
    assert_eq!(run(1), run(3));
}

#[test]
fn penalties_let_others_come_first() {
    let compute = Compute::new(1);
    let head = head(BlockFormat::F16, 2000, 6);
    let screen = random(&compute, &head, 12.0);
    let mut scratch = ScreenScratch::new(&screen);
    let x = token(&compute, &head, 100, 50.0, 2);
    let logits = full(&compute, &head, &x);
    let second = order(&logits)[1];
    let adjust = |id: u32, logit: f32| if id == 100 { logit - 1000.0 } else { logit };
    if let Some(list) = screen.shortlist(&compute, &head, &x, &best(&adjust), &mut scratch) {
        assert!(list.ids.binary_search(&second).is_ok());
    }
    let adjust = |id: u32, logit: f32| if id == 100 { logit - 0.5 } else { logit };
    let list = screen.shortlist(&compute, &head, &x, &best(&adjust), &mut scratch).unwrap();
    assert!(list.ids.binary_search(&100).is_ok());
}

#[test]
fn caps_keep_the_best_rows() {
    let compute = Compute::new(1);
    let head = head(BlockFormat::Q8_0, 2000, 5);
    let screen = random(&compute, &head, 8.0);
    let mut scratch = ScreenScratch::new(&screen);
    for (lean, cap) in [(8.0, 10.0), (20.0, 30.0), (30.0, 2.0)] {
        let x = token(&compute, &head, 1234, lean, 3);
        let mut capped = full(&compute, &head, &x);
        soft_cap(compute.kernels, cap, &mut capped);
        let order = order(&capped);
        for (reach, wanted) in [(Reach::Best, 1), (Reach::Top(5), 5), (Reach::Mass(0.9), 0)] {
            let wanted_rows = Wanted { cap: Some(cap), ..Wanted::plain(reach) };
            let Some(list) = screen.shortlist(&compute, &head, &x, &wanted_rows, &mut scratch) else {
                // The mass of capped logits is not known, nor the order of logits at their bound. All rows but one are
                // in the crowd, so that the fifth cannot be told apart.
                assert!(wanted != 1 || cap == 2.0, "{lean} {cap} {reach:?}");
                continue;
            };
            for id in &order[..wanted] {
                let at = list.ids.binary_search(id).expect("one of the best");
                assert!((list.logits[at] - capped[*id as usize]).abs() < 1e-5, "{lean} {cap} {id}");
            }
        }
    }
}

#[test]
fn scores_along_random_axes_are_right_on_average_and_as_uncertain_as_stated() {
    // 2,000 rows and 20 tokens that lean toward one of them: errors in standard deviations.
    let compute = Compute::new(1);
    let head = head(BlockFormat::F32, 2000, 14);
    let screen = random(&compute, &head, 4.0);
    let mut scratch = ScreenScratch::new(&screen);
    let (mut all, mut squares, mut n, mut of_best) = (0.0, 0.0, 0.0, 0.0);
    for t in 0..20 {
        let x = token(&compute, &head, t * 97, 40.0, t as u64);
        let logits = full(&compute, &head, &x);
        for (r, logit) in logits.iter().enumerate().step_by(37) {
            let z = screen.margin_of(&compute, &x, r as u32, *logit, &mut scratch).unwrap();
            (all, squares, n) = (all + z, squares + z * z, n + 1.0);
        }
        let best = t * 97;
        of_best += screen.margin_of(&compute, &x, best as u32, logits[best], &mut scratch).unwrap() / 20.0;
    }
    assert!((all / n).abs() < 0.15, "{}", all / n);
    assert!((0.85..1.15).contains(&(squares / n).sqrt()), "{}", (squares / n).sqrt());
    // The row that a token leans toward is not known worse than others.
    assert!(of_best.abs() < 0.9, "{of_best}");
}

/// Along random axes errors grow as tokens do, and so does what is looked for.
#[test]
fn a_longer_token_has_the_same_list() {
    let compute = Compute::new(1);
    let head = head(BlockFormat::Q8_0, 4000, 8);
    let screen = random(&compute, &head, 5.0);
    let mut scratch = ScreenScratch::new(&screen);
    let mut x = token(&compute, &head, 77, 2.0, 9);
    let mut lists = [1.0, 16.0].map(|factor| {
        x.x_mut().iter_mut().for_each(|x| *x *= factor);
        x.quantize(compute.kernels);
        let list = screen.shortlist(&compute, &head, &x, &Wanted::plain(Reach::Best), &mut scratch);
        let list = list.expect("not too many in question");
        let (ids, logits) = (list.ids.to_vec(), list.logits.to_vec());
        // Whichever row is within the margin of the best is listed.
        let best = logits.iter().copied().fold(f32::MIN, f32::max);
        let mut far = |r: u32| screen.margin_of(&compute, &x, r, best, &mut scratch).unwrap() > 4.99;
        let missing: Vec<u32> = (0..4000).filter(|r| !far(*r) && ids.binary_search(r).is_err()).collect();
        assert!(missing.is_empty(), "{missing:?}");
        (ids, logits)
    });
    assert!(lists[0].0.len() > 100, "so few are chosen in any case: {}", lists[0].0.len());
    lists[0].1.iter_mut().for_each(|logit| *logit *= 16.0);
    assert_eq!(lists[0], lists[1]);
}

/// The part of their logits that all rows share is none of the screen's errors.
#[test]
fn what_rows_share_moves_no_margin() {
    let compute = Compute::new(1);
    let plain = head(BlockFormat::F32, 400, 10);
    let mut values = vec![0.0; 400 * COLS];
    for (r, row) in values.chunks_mut(COLS).enumerate() {
        plain.decode_row(r, row);
        row.iter_mut().for_each(|w| *w += 1.0);
    }
    let bytes = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let shifted = Matrix::new(BlockFormat::F32, COLS, Storage::Owned(bytes)).unwrap();
    let screen = random(&compute, &shifted, 5.0);
    let mut scratch = ScreenScratch::new(&screen);
    let mut x = token(&compute, &plain, 77, 45.0, 9);
    x.x_mut().iter_mut().for_each(|x| *x += 3.0);
    x.quantize(compute.kernels);
    let logits = full(&compute, &shifted, &x);
    assert!(logits.iter().all(|logit| *logit > 300.0), "they share most of their logits");
    for (r, logit) in logits.iter().enumerate() {
        let z = screen.margin_of(&compute, &x, r as u32, *logit, &mut scratch).unwrap();
        assert!(z.abs() < 6.0, "row {r}: {z} deviations");
    }
}

#[test]
fn what_is_not_finite_is_never_hidden() {
    let compute = Compute::new(1);
    let mut bytes = head(BlockFormat::Q8_0, 1000, 7).storage().bytes().to_vec();
    let row = BlockFormat::Q8_0.row_bytes(COLS).unwrap();
    bytes[612 * row..612 * row + 2].copy_from_slice(&[0, 0x7E]);
    let head = Matrix::new(BlockFormat::Q8_0, COLS, Storage::Owned(bytes)).unwrap();
    let screen = random(&compute, &head, 5.0);
    let mut scratch = ScreenScratch::new(&screen);
    let mut x = token(&compute, &head, 3, 50.0, 1);
    // NaN in a row: it is listed for every token, so that its logit is seen.
    let list = screen.shortlist(&compute, &head, &x, &Wanted::plain(Reach::Best), &mut scratch).unwrap();
    let at = list.ids.binary_search(&612).expect("the damaged row");
    assert!(list.logits[at].is_nan());
    // NaN in a token: the whole head says so.
    x.x_mut()[9] = f32::NAN;
    x.quantize(compute.kernels);
    assert!(screen.shortlist(&compute, &head, &x, &Wanted::plain(Reach::Best), &mut scratch).is_none());
}

#[test]
fn wrong_shapes_and_margins_are_refused() {
    let compute = Compute::new(1);
    let head = head(BlockFormat::F32, 100, 1);
    let new = |inputs, best, mass| {
        Screen::new(&compute, &head, Axes::rotated(inputs, 1.0), None, Margins { best, mass })
            .map_err(|e| e.to_string())
    };
    assert!(new(COLS, 1.0, 1.0).is_ok());
    let refused = new(COLS + 1, 1.0, 1.0).unwrap_err();
    assert_eq!(refused, "inputs of the screen: expected 256, found 257");
    for (best, mass) in [(f32::NAN, 1.0), (1.0, f32::INFINITY), (0.0, 1.0), (1.0, -1.0)] {
        assert!(new(COLS, best, mass).unwrap_err().starts_with("margin of the "));
    }
}

#[cfg(feature = "fit")]
#[test]
fn fitted_axes_screen_with_fewer_bytes() {
    use sparse_core::{AxesFit, lost_rows};
    let compute = Compute::new(1);
    let head = head(BlockFormat::Q8_0, 3000, 8);
    // Tokens that vary along a few rows only.
    let tokens: Vec<Activations> =
        (0..200).map(|t| token(&compute, &head, t % 40, 40.0 + t as f32 % 7.0, t as u64 % 3)).collect();
    let mut fit = AxesFit::new(COLS);
    tokens.iter().for_each(|x| fit.add(x.x()).unwrap());
    let (axes, left) = fit.axes().unwrap();
    assert_eq!((axes.nibbles(), axes.dims()), (32, 96));
    let lost = lost_rows(&compute, &head, &left);
    for lost in [None, Some(&*lost)] {
        let fitted = Screen::new(&compute, &head, axes.clone(), lost, Margins::default()).unwrap();
        assert!(fitted.bytes() * 10 < random(&compute, &head, 5.0).bytes() * 9);
        let mut scratch = ScreenScratch::new(&fitted);
        for x in &tokens[..60] {
            let best = order(&full(&compute, &head, x))[0];
            let list =
                fitted.shortlist(&compute, &head, x, &Wanted::plain(Reach::Best), &mut scratch).unwrap();
            assert!(list.ids.len() < 300 && list.ids.binary_search(&best).is_ok(), "{}", list.ids.len());
        }
    }
    for (lost, problem) in [(vec![0.0; 9], "expected 3000, found 9"), (vec![f32::NAN; 3000], "is NaN")] {
        let refused = Screen::new(&compute, &head, axes.clone(), Some(&lost), Margins::default());
        assert!(refused.unwrap_err().to_string().contains(problem));
    }
    let refused = |inputs| AxesFit::new(inputs).axes().unwrap_err().to_string();
    assert_eq!(refused(COLS), "number of tokens is 0, expected enough to vary");
    assert_eq!(refused(16), "inputs of the head is 16, expected at least 32");
    assert!(AxesFit::new(0).add(&[1.0]).is_err());
    assert!(AxesFit::new(8).add(&[f32::NAN; 8]).is_err());
}

/// `x`, less what it has along `axes`.
#[cfg(feature = "fit")]
fn outside(axes: &Matrix, x: &[f32]) -> Vec<f32> {
    let (mut rest, mut direction) = (x.to_vec(), vec![0.0; COLS]);
    for k in 0..axes.rows() {
        axes.decode_row(k, &mut direction);
        let along: f32 = direction.iter().zip(x).map(|(d, x)| d * x).sum();
        rest.iter_mut().zip(&direction).for_each(|(r, d)| *r -= along * d);
    }
    rest
}

#[cfg(feature = "fit")]
#[test]
fn what_rows_have_outside_the_axes_is_known() {
    use sparse_core::{AxesFit, lost_rows};
    let compute = Compute::new(1);
    let head = head(BlockFormat::F32, 300, 11);
    let tokens: Vec<Activations> = (0..400).map(|t| token(&compute, &head, t % 40, 9.0, t as u64)).collect();
    let mut fit = AxesFit::new(COLS);
    tokens.iter().for_each(|x| fit.add(x.x()).unwrap());
    let (axes, left) = fit.axes().unwrap();
    let lost = lost_rows(&compute, &head, &left);
    let rows: Vec<Vec<f32>> = (0..300)
        .map(|r| {
            let mut row = vec![0.0; COLS];
            head.decode_row(r, &mut row);
            row
        })
        .collect();
    let common: Vec<f32> = (0..COLS).map(|i| rows.iter().map(|row| row[i]).sum::<f32>() / 300.0).collect();
    let beyond: Vec<Vec<f32>> = tokens
        .iter()
        .map(|x| {
            let x: Vec<f32> = x.x().iter().zip(axes.mean()).map(|(x, m)| x - m).collect();
            outside(axes.matrix().unwrap(), &x)
        })
        .collect();
    for (row, lost) in rows.iter().zip(&lost).step_by(7) {
        let square =
            |x: &Vec<f32>| x.iter().zip(row).zip(&common).map(|((x, w), c)| x * (w - c)).sum::<f32>().powi(2);
        let measured = (beyond.iter().map(square).sum::<f32>() / 400.0).sqrt();
        assert!((measured - lost).abs() < 0.02 * measured, "{measured} {lost}");
    }
}
