package s3sinktest

import (
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"hash"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"strings"
)

const (
	checksumPrefix = "X-Amz-Checksum-"
	crc32Name      = "Crc32"

	// defaultChecksum is what S3 computes when a request brings none.
	defaultChecksum = "Crc64nvme"
)

var (
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
	nvme       = crc64.MakeTable(0x9a6c9329ac4bc9b5)

	// checksums are S3's, by the name of their header without its prefix.
	checksums = map[string]func() hash.Hash{
		crc32Name:       func() hash.Hash { return crc32.NewIEEE() },
		"Crc32c":        func() hash.Hash { return crc32.New(castagnoli) },
		defaultChecksum: func() hash.Hash { return crc64.New(nvme) },
		"Sha1":          sha1.New,
		"Sha256":        sha256.New,
	}
)

func sum(name string, body []byte) string {
	h := checksums[name]()
	h.Write(body)
	return base64.StdEncoding.EncodeToString(h.Sum(nil))
}

// requestChecksum finds the checksum in a request, if it has one.
func requestChecksum(h http.Header) (name, value string) {
	for name := range checksums {
		if value := h.Get(checksumPrefix + name); value != "" {
			return name, value
		}
	}
	return "", ""
}

func (s *Server) checkChecksum(c *call) *apiError {
	if s.ignoresChecksums {
		return nil
	}
	count := 0
	for name := range checksums {
		count += len(c.r.Header.Values(checksumPrefix + name))
	}
	if count > 1 {
		return &apiError{status: 400, code: "InvalidRequest",
			message: "Expecting a single x-amz-checksum- header. Multiple checksum Types are not allowed."}
	}
	name, value := requestChecksum(c.r.Header)
	if name == "" {
		if c.r.Header.Get("X-Amz-Sdk-Checksum-Algorithm") == "" {
			return nil
		}
		return &apiError{status: 400, code: "InvalidRequest",
			message: "x-amz-sdk-checksum-algorithm specified, but no corresponding x-amz-checksum-* or x-amz-trailer headers were found."}
	}
	want, err := base64.StdEncoding.DecodeString(value)
	if err != nil || len(want) != checksums[name]().Size() {
		return &apiError{status: 400, code: "InvalidRequest",
			message: "Value for " + strings.ToLower(checksumPrefix+name) + " header is invalid."}
	}
	if value != sum(name, c.body) {
		return &apiError{status: 400, code: "BadDigest",
			message: "The " + strings.ToUpper(name) + " you specified did not match the calculated checksum."}
	}
	return nil
}
