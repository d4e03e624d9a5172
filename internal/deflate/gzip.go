package deflate

import "encoding/binary"

// Header is the gzip header of every object: deflate, no name, no time,
// unknown operating system. It holds nothing that varies, so equal frames
// make equal objects. Do not change.
//
//	1f 8b  magic
//	08     deflate
//	00     no flags
//	00 x4  no modification time
//	00     no extra flags
//	ff     unknown operating system
const Header = "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"

// TrailerSize is the length of what [Trailer] returns.
const TrailerSize = 2 + 4 + 4

// Overhead is what an object is longer than the sum of its frames.
const Overhead = len(Header) + TrailerSize

// MaxRaw is the most raw bytes one object may hold. The trailer has 32 bits
// for the length; beyond them readers that check it would see a false one.
const MaxRaw = 1<<32 - 1

// Trailer closes an object: an empty final deflate block, then the CRC-32 and
// the length of the raw bytes.
func Trailer(rawCRC uint32, raw int64) []byte {
	t := make([]byte, 0, TrailerSize)
	t = append(t, 0x03, 0x00) // final block, fixed codes, end of block
	t = binary.LittleEndian.AppendUint32(t, rawCRC)
	return binary.LittleEndian.AppendUint32(t, uint32(raw))
}
