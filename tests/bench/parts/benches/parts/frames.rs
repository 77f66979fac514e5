//! A client's frame to a message, and a message to the frame that all its receivers share.

use divan::Bencher;
use divan::counter::BytesCount;
use rwf::parts::{self, Frames};
use rwf::websocket::Bytes;

const SHORT: [u8; 32] = [b'x'; 32];
const LONG: usize = 64 << 10;

/// A whole message in one frame, masked as a client's (RFC 6455 §5.2).
fn masked(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut wire = vec![0x80 | opcode];
    if payload.len() < 126 {
        wire.push(0x80 | payload.len() as u8);
    } else {
        wire.push(0x80 | 127);
        wire.extend((payload.len() as u64).to_be_bytes());
    }
    wire.extend(mask);
    wire.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    wire
}

fn decode(bencher: Bencher<'_, '_>, opcode: u8, payload: &[u8]) {
    let wire = masked(opcode, payload);
    let mut frames = Frames::default();
    assert_eq!(frames.decode(&wire), payload.len());
    bencher
        .counter(BytesCount::of_slice(payload))
        .bench_local(|| frames.decode(divan::black_box(&wire)));
}

#[divan::bench(sample_size = 1000)]
fn decode_text_32(bencher: Bencher<'_, '_>) {
    decode(bencher, 1, &SHORT);
}

#[divan::bench(sample_size = 100)]
fn decode_binary_65536(bencher: Bencher<'_, '_>) {
    decode(bencher, 2, &[7; LONG]);
}

#[divan::bench(sample_size = 100)]
fn decode_text_65536(bencher: Bencher<'_, '_>) {
    decode(bencher, 1, &[b'x'; LONG]);
}

/// The text is copied, from a slice that the program keeps.
#[divan::bench(sample_size = 1000)]
fn encode_text_32(bencher: Bencher<'_, '_>) {
    let text = String::from_utf8_lossy(&SHORT);
    bencher.bench(|| parts::frame(divan::black_box(&*text)));
}

/// The bytes are not copied, so that their number does not count.
#[divan::bench(sample_size = 1000)]
fn encode_binary_65536(bencher: Bencher<'_, '_>) {
    let bytes = Bytes::from(vec![7; LONG]);
    bencher.bench(|| parts::frame(divan::black_box(&bytes).clone()));
}
