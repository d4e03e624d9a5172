package deflate

import (
	"hash/crc32"
	"math/bits"
)

// CombineCRC returns the CRC-32 (IEEE) of the bytes behind first followed by
// the size bytes behind second. It lets the blocks of an object be checksummed
// in parallel and joined without another look at their bytes.
//
// A CRC is the remainder of a polynomial. Appending size bytes multiplies the
// first remainder by x^(8*size); the second is then added, and + is xor.
func CombineCRC(first, second uint32, size int64) uint32 {
	return multiply(powerOfX(8*uint64(size)), first) ^ second
}

// squares[k] is x^(2^k) modulo the CRC polynomial. Bits are reflected, as
// everywhere in CRC-32: the top bit is the coefficient of x^0.
var squares = func() (s [64]uint32) {
	s[0] = 1 << 30 // x^1
	for k := 1; k < len(s); k++ {
		s[k] = multiply(s[k-1], s[k-1])
	}
	return s
}()

func powerOfX(n uint64) uint32 {
	p := uint32(1) << 31 // x^0
	for n != 0 {
		k := bits.TrailingZeros64(n)
		p = multiply(squares[k], p)
		n &= n - 1
	}
	return p
}

// multiply returns a*b modulo the CRC polynomial.
func multiply(a, b uint32) uint32 {
	var product uint32
	for a != 0 {
		if a&(1<<31) != 0 {
			product ^= b
		}
		a <<= 1
		odd := b & 1
		b >>= 1
		if odd != 0 {
			b ^= crc32.IEEE
		}
	}
	return product
}
