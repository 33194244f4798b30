//! Draws the URI of an enrolment as a QR code (ISO/IEC 18004), in SVG.
//!
//! The picture holds the secret as the URI does: it is wiped, it is in no log, and only the answer to the enrolment has it.

use std::fmt::Write;

use qrcode::{Color, EcLevel, QrCode};
use zeroize::Zeroizing;

use crate::error::{Error, Result};

/// Light modules around the code. Readers need four.
const QUIET_ZONE: usize = 4;

/// The format that a request asks for with `qr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum QrFormat {
    /// `svg`
    Svg,
}

impl QrFormat {
    pub(super) fn parse(text: &str) -> Result<Self> {
        match text {
            "svg" => Ok(Self::Svg),
            _ => Err(Error::invalid("qr", "expected svg")),
        }
    }
}

/// Draws `uri` black on white: one `<path>`, in which each run of dark modules is a line of width 1. No double quote is in it,
/// so JSON escapes nothing.
///
/// Returns `None` for a URI that is too long for a QR code: the largest holds 2,953 bytes. This is no refusal, because the
/// enrolment exists by then and its secret is shown nowhere else.
pub(super) fn svg(uri: &str) -> Option<Zeroizing<String>> {
    let code = QrCode::with_error_correction_level(uri, EcLevel::L).ok()?;
    let width = code.width();
    let size = width.saturating_add(2 * QUIET_ZONE);
    // Room for the largest code, so that it does not move and leave a copy behind.
    let mut svg = Zeroizing::new(String::with_capacity(width.saturating_mul(width).max(1024)));
    write_svg(&mut svg, &code.to_colors(), width, size).ok()?;
    Some(svg)
}

fn write_svg(svg: &mut String, modules: &[Color], width: usize, size: usize) -> std::fmt::Result {
    write!(
        svg,
        "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {size} {size}' role='img' aria-label='QR code' \
         shape-rendering='crispEdges'><rect width='{size}' height='{size}' fill='#fff'/><path stroke='#000' d='"
    )?;
    for (row, modules) in modules.chunks(width).enumerate() {
        // Lines run through the middle of the modules.
        write!(svg, "M0 {}.5", row.saturating_add(QUIET_ZONE))?;
        let mut skipped = QUIET_ZONE;
        for run in modules.chunk_by(|one, next| one == next) {
            if run.first() == Some(&Color::Dark) {
                write!(svg, "m{skipped} 0h{}", run.len())?;
                skipped = 0;
            } else {
                skipped = skipped.saturating_add(run.len());
            }
        }
    }
    svg.write_str("'/></svg>")
}
