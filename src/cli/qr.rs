//! Draws a URI as a QR code in the terminal.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// Black on white whatever the terminal's colours are, as QR readers expect.
const BLACK_ON_WHITE: &str = "\x1b[38;5;16;48;5;231m";
const PLAIN: &str = "\x1b[0m";

/// Draws `text`, two modules to a character, with the quiet zone around it.
///
/// With `colour` it is always black on white. Without, light modules have the terminal's foreground colour: correct on a
/// dark terminal, and inverted on a light one, which phones read too.
///
/// Returns nothing where `text` is too long for a QR code: the largest holds 2,953 bytes.
pub(super) fn draw(text: &str, colour: bool) -> Option<String> {
    let code = QrCode::with_error_correction_level(text, EcLevel::L).ok()?;
    let (dark, light) = if colour {
        (Dense1x2::Dark, Dense1x2::Light)
    } else {
        (Dense1x2::Light, Dense1x2::Dark)
    };
    let drawn = code
        .render::<Dense1x2>()
        .dark_color(dark)
        .light_color(light)
        .build();
    if !colour {
        return Some(drawn);
    }
    let lines = drawn
        .lines()
        .map(|it| format!("{BLACK_ON_WHITE}{it}{PLAIN}"));
    Some(lines.collect::<Vec<_>>().join("\n"))
}
