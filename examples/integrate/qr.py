"""Draws a text as a QR code (ISO/IEC 18004): bytes, correction level L, versions 1 to 20, mask 0.

An application that has a library for QR codes uses that instead.
"""

# For each version: correction bytes a block, and the number of blocks, at level L.
ECC_BYTES = [7, 10, 15, 20, 26, 18, 20, 24, 30, 18, 20, 24, 26, 30, 22, 24, 28, 30, 28, 28]
BLOCKS = [1, 1, 1, 1, 1, 2, 2, 2, 2, 4, 4, 4, 4, 4, 6, 6, 6, 6, 7, 8]
QUIET = 4  # light modules around the code


def gf_multiply(x, y):
    """The product in GF(256) with the polynomial 0x11D."""
    product = 0
    for bit in range(7, -1, -1):
        product = (product << 1) ^ ((product >> 7) * 0x11D) ^ ((y >> bit & 1) * x)
    return product


def correction(data, length):
    """The Reed-Solomon remainder of `data`."""
    divisor, root = [0] * (length - 1) + [1], 1
    for _ in range(length):
        for index in range(length):
            following = divisor[index + 1] if index + 1 < length else 0
            divisor[index] = gf_multiply(divisor[index], root) ^ following
        root = gf_multiply(root, 2)
    rest = [0] * length
    for byte in data:
        factor = byte ^ rest.pop(0)
        rest = [it ^ gf_multiply(by, factor) for it, by in zip(rest + [0], divisor)]
    return rest


def positions(version):
    """The rows, which are also the columns, of the centres of alignment patterns."""
    if version == 1:
        return []
    count = version // 7 + 2
    gap = (version * 4 + count * 2 + 1) // (count * 2 - 2) * 2
    return [6] + [version * 4 + 10 - gap * it for it in range(count - 2, -1, -1)]


def remainder(value, bits, polynomial):
    """`value` followed by `bits` check bits of a BCH code."""
    rest = value
    for _ in range(bits):
        rest = (rest << 1) ^ ((rest >> (bits - 1)) * polynomial)
    return value << bits | rest


def fixed_modules(version):
    """The modules that hold no data, by (row, column)."""
    size, fixed = version * 4 + 17, {}

    def ring(row, column, radius, dark):
        for y in range(max(row - radius, 0), min(row + radius, size - 1) + 1):
            for x in range(max(column - radius, 0), min(column + radius, size - 1) + 1):
                fixed[y, x] = max(abs(y - row), abs(x - column)) in dark

    for it in range(size):
        fixed[6, it] = fixed[it, 6] = it % 2 == 0
    for row, column in [(3, 3), (3, size - 4), (size - 4, 3)]:
        ring(row, column, 4, (0, 1, 3))
    centres = positions(version)
    corners = [(6, 6), (6, size - 7), (size - 7, 6)]
    for row, column in [(y, x) for y in centres for x in centres if (y, x) not in corners]:
        ring(row, column, 2, (0, 2))
    # Level L is 01 and mask 0 is 000.
    form = remainder(0b01000, 10, 0x537) ^ 0x5412
    for bit in range(15):
        dark = form >> bit & 1 == 1
        fixed[bit + (bit > 5) if bit < 8 else size - 15 + bit, 8] = dark
        fixed[8, size - 1 - bit if bit < 8 else 14 - bit + (bit < 9)] = dark
    fixed[size - 8, 8] = True
    if version >= 7:
        number = remainder(version, 12, 0x1F25)
        for bit in range(18):
            far, near = size - 11 + bit % 3, bit // 3
            fixed[far, near] = fixed[near, far] = number >> bit & 1 == 1
    return fixed


def data_capacity(version, fixed):
    """The bytes of data and correction."""
    return ((version * 4 + 17) ** 2 - len(fixed)) // 8


def with_correction(text, version, capacity):
    """The bytes of the code: the blocks of data, then those of correction, interleaved."""
    blocks, ecc = BLOCKS[version - 1], ECC_BYTES[version - 1]
    room = capacity - blocks * ecc
    length_bits = 8 if version < 10 else 16
    bits = f"0100{len(text):0{length_bits}b}" + "".join(f"{it:08b}" for it in text)
    bits += "0" * min(4, room * 8 - len(bits))
    bits += "0" * (-len(bits) % 8)
    data = [int(bits[it : it + 8], 2) for it in range(0, len(bits), 8)]
    data += [(0xEC, 0x11)[it % 2] for it in range(room - len(data))]
    short, parts, start = room // blocks, [], 0
    for number in range(blocks):
        end = start + short + (number >= blocks - room % blocks)
        parts.append(data[start:end])
        start = end
    checks = [correction(it, ecc) for it in parts]
    woven = [it[index] for index in range(short + 1) for it in parts if index < len(it)]
    return woven + [it[index] for index in range(ecc) for it in checks]


def modules(text):
    """The rows of the code; True is dark."""
    text = text.encode()
    for version in range(1, 21):
        fixed = fixed_modules(version)
        capacity = data_capacity(version, fixed)
        room = capacity - BLOCKS[version - 1] * ECC_BYTES[version - 1]
        if len(text) + (2 if version < 10 else 3) <= room:
            break
    else:
        raise ValueError("the text is too long for a QR code of this program")
    size = version * 4 + 17
    bits = "".join(f"{it:08b}" for it in with_correction(text, version, capacity))
    drawn, used = dict(fixed), 0
    for right in [*range(size - 1, 6, -2), 5, 3, 1]:
        upwards = (right + 1) & 2 == 0
        for step in range(size):
            row = size - 1 - step if upwards else step
            for column in (right, right - 1):
                if (row, column) not in fixed:
                    dark = used < len(bits) and bits[used] == "1"
                    drawn[row, column] = dark != ((row + column) % 2 == 0)
                    used += 1
    return [[drawn[row, column] for column in range(size)] for row in range(size)]


def svg(text):
    """The QR code as an <svg> element, black on white."""
    rows = modules(text)
    size = len(rows) + 2 * QUIET
    dark = [(x, y) for y, row in enumerate(rows) for x, is_dark in enumerate(row) if is_dark]
    path = "".join(f"M{x + QUIET} {y + QUIET}h1v1h-1z" for x, y in dark)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size * 5}" role="img" '
        f'aria-label="QR code"><path fill="#fff" d="M0 0h{size}v{size}H0z"/><path d="{path}"/></svg>'
    )
