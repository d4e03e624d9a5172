package spool

import (
	"encoding/binary"
	"hash/crc32"
)

// FixHeader makes the checksum of a file's header right.
func FixHeader(b []byte) {
	binary.LittleEndian.PutUint32(b[32:], crc32.Checksum(b[:32], castagnoli))
}
