use half::f16;
use sparse_simd::layout::*;
use sparse_simd::{BlockFormat, ShapeError};

#[test]
fn every_format_decodes_at_any_address() {
    for format in BlockFormat::ALL {
        let bytes: Vec<u8> = (0..format.block_bytes() * 3 + 1).map(|i| (i * 37 + i / 7) as u8).collect();
        let copy = bytes[1..].to_vec();
        let mut moved = vec![0.0; format.block_len() * 3];
        let mut plain = moved.clone();
        format.decode(&bytes[1..], &mut moved).unwrap();
        format.decode(&copy, &mut plain).unwrap();
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&moved), bits(&plain), "{}", format.name());
    }
}

#[test]
fn lengths_that_do_not_fit_are_refused() {
    for format in BlockFormat::ALL {
        let (bytes, len) = (vec![0; 2 * format.block_bytes()], 2 * format.block_len());
        let mut out = vec![0.0; len + 1];
        assert!(
            matches!(format.decode(&bytes, &mut out), Err(ShapeError::Values { .. })),
            "{}",
            format.name()
        );
        assert!(matches!(format.decode(&bytes[1..], &mut out[..len]), Err(ShapeError::Bytes { .. })));
        assert_eq!(format.decode(&bytes, &mut out[..len]), Ok(()));
        assert_eq!(format.decode(&[], &mut []), Ok(()));
    }
    let error = BlockFormat::Q4_0.decode(&[0; 17], &mut []).unwrap_err();
    assert_eq!(error.to_string(), "17 bytes are no whole number of Q4_0 blocks of 18 bytes");
}

#[test]
fn written_codes_are_read_back() {
    for format in BlockFormat::ALL {
        let Some([low, high]) = format.code_range() else { continue };
        let span = i32::from(high) - i32::from(low) + 1;
        for from in 0..span {
            let codes = core::array::from_fn(|i| (i32::from(low) + (from + 7 * i as i32) % span) as i8);
            let mut block = vec![0xA5; format.block_bytes()];
            format.write_block(Half::from_f32(-0.5), &codes, &mut block);
            let mut values = [0.0; 32];
            format.decode(&block, &mut values).unwrap();
            assert_eq!(values, codes.map(|q| -0.5 * f32::from(q)), "{}", format.name());
        }
    }
}

#[test]
fn lanes_of_three_and_seven_bits_waste_none() {
    for (format, bits) in [(BlockFormat::Bit3, 3), (BlockFormat::Bit7, 7)] {
        assert_eq!(format.block_bytes(), 2 + 32 * bits / 8);
        // Code i of ones in its own bits and zeros elsewhere is the only one that is not the lowest.
        for i in 0..32 {
            let mut bytes = vec![0; format.block_bytes()];
            bytes[..2].copy_from_slice(bytemuck::bytes_of(&Half::from_f32(1.0)));
            for bit in bits * i..bits * (i + 1) {
                bytes[2 + bit / 8] |= 1 << (bit % 8);
            }
            let mut values = [0.0; 32];
            format.decode(&bytes, &mut values).unwrap();
            let half = f32::from(1u8 << (bits - 1));
            let expected = core::array::from_fn(|k| if k == i { half - 1.0 } else { -half });
            assert_eq!(values, expected, "{} {i}", format.name());
        }
    }
}

#[test]
fn hand_made_blocks() {
    let one = Half::from_f32(1.0);
    let decode = |format: BlockFormat, bytes: &[u8]| {
        let mut out = vec![0.0; format.block_len()];
        format.decode(bytes, &mut out).unwrap();
        out
    };
    let q4_0 = decode(
        BlockFormat::Q4_0,
        bytemuck::bytes_of(&BlockQ4_0 { d: one, qs: core::array::from_fn(|i| i as u8) }),
    );
    assert_eq!(q4_0[..16], core::array::from_fn::<f32, 16, _>(|i| i as f32 - 8.0));
    assert_eq!(q4_0[16..], [-8.0; 16]);

    // Scale 3 and minimum 2 in each sub-block but the last, which has 63 and 1 spread over three bytes.
    let mut scales = [3, 3, 3, 3, 2, 2, 2, 2, 0x23, 0x23, 0x23, 0x1F];
    scales[3] |= 0xC0;
    let q4_k = decode(
        BlockFormat::Q4K,
        bytemuck::bytes_of(&BlockQ4K { d: one, dmin: one, scales, qs: [0x51; 128] }),
    );
    let expected = |g: usize| match g {
        7 => 63.0 * 5.0 - 1.0,
        _ if g.is_multiple_of(2) => 3.0 - 2.0,
        _ => 3.0 * 5.0 - 2.0,
    };
    assert_eq!(q4_k, (0..256).map(|i| expected(i / 32)).collect::<Vec<_>>());
}

#[test]
fn non_finite_scales_propagate() {
    for (format, offset) in [(BlockFormat::Q4_0, 0), (BlockFormat::Q6K, 208), (BlockFormat::Q2K, 80)] {
        let mut bytes = vec![0x11; format.block_bytes()];
        bytes[offset..offset + 2].copy_from_slice(&f16::NAN.to_le_bytes());
        let mut out = vec![0.0; format.block_len()];
        format.decode(&bytes, &mut out).unwrap();
        assert!(out.iter().all(|x| x.is_nan()), "{}", format.name());
    }
}
