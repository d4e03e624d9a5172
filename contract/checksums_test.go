package contract

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash/crc32"
	"hash/crc64"
	"net/http"
	"testing"
)

// An algorithm is a checksum algorithm that has a header in S3.
type algorithm struct {
	name string
	sum  func(string) []byte
}

const crc32Header = "x-amz-checksum-crc32"

var algorithms = []algorithm{
	{"crc32", func(s string) []byte { return binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE([]byte(s))) }},
	{"crc32c", func(s string) []byte {
		return binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte(s), crc32.MakeTable(crc32.Castagnoli)))
	}},
	{"crc64nvme", func(s string) []byte {
		return binary.BigEndian.AppendUint64(nil, crc64.Checksum([]byte(s), crc64.MakeTable(0x9a6c9329ac4bc9b5)))
	}},
	{"sha1", func(s string) []byte { return sum(sha1.Sum([]byte(s))) }},
	{"sha256", func(s string) []byte { return sum(sha256.Sum256([]byte(s))) }},
}

func sum[T [20]byte | [32]byte](v T) []byte {
	switch v := any(v).(type) {
	case [20]byte:
		return v[:]
	case [32]byte:
		return v[:]
	}
	return nil
}

func (a algorithm) header() string { return "x-amz-checksum-" + a.name }

func (a algorithm) of(body string) string {
	return base64.StdEncoding.EncodeToString(a.sum(body))
}

var checksums = append(everyAlgorithm(),
	expectation{
		name:    "the answer to a put has the CRC32 that was sent",
		aws:     "200 with it",
		differs: differs{ceph: "200 without it"},
		see: func(t *testing.T, s *site) string {
			crc := algorithms[0].of(hello)
			a := s.do(t, put("crc-echo/a", hello, crc32Header, crc))
			return a.String() + withOrWithout(a.header.Get(crc32Header) == crc)
		},
	},
	expectation{
		name:    "a get with x-amz-checksum-mode has the CRC32 that was sent",
		aws:     "200 with it",
		differs: differs{ceph: "200 without it"},
		see: func(t *testing.T, s *site) string {
			crc := algorithms[0].of(hello)
			s.do(t, put("crc-get/a", hello, crc32Header, crc))
			a := s.do(t, to(http.MethodGet, "crc-get/a", "", "x-amz-checksum-mode", "ENABLED"))
			return a.String() + withOrWithout(a.header.Get(crc32Header) == crc)
		},
	},
	expectation{
		name:    "a wrong CRC32 stores nothing",
		aws:     "404 NoSuchKey",
		differs: differs{ceph: "200"},
		see: func(t *testing.T, s *site) string {
			s.do(t, put("crc-stored/a", hello, crc32Header, algorithms[0].of("other")))
			return s.object(t, "crc-stored/a").String()
		},
	},
	expectation{
		name:    "a CRC32 of 8 bytes",
		aws:     "400 InvalidRequest",
		differs: differs{minio: "400 InvalidArgument", ceph: "200"},
		see: one(func(*site) request {
			return put("crc-long/a", hello, crc32Header, algorithms[2].of(hello))
		}),
	},
	expectation{
		name:    "a CRC32 that is not base64",
		aws:     "400 InvalidRequest",
		differs: differs{minio: "400 InvalidArgument", ceph: "200"},
		see:     one(func(*site) request { return put("crc-text/a", hello, crc32Header, "hello") }),
	},
	expectation{
		name:    "two checksums",
		aws:     "400 InvalidRequest",
		differs: differs{minio: "400 InvalidArgument", ceph: "200"},
		see: one(func(*site) request {
			return put("crc-two/a", hello, crc32Header, algorithms[0].of(hello), "x-amz-checksum-sha256", algorithms[4].of(hello))
		}),
	},
	expectation{
		name: "a wrong x-amz-content-sha256",
		aws:  "400 XAmzContentSHA256Mismatch",
		see: one(func(*site) request {
			r := put("sha-wrong/a", hello)
			r.payload = hexSHA256("other")
			return r
		}),
	},
	expectation{
		name:    "an invalid x-amz-content-sha256",
		aws:     "400 InvalidArgument",
		differs: differs{minio: "400 XAmzContentSHA256Mismatch", ceph: "400 XAmzContentSHA256Mismatch"},
		see: one(func(*site) request {
			r := put("sha-none/a", hello)
			r.payload = "hello"
			return r
		}),
	},
	expectation{
		name: "a wrong Content-MD5",
		aws:  "400 BadDigest",
		see: one(func(*site) request {
			md := md5.Sum([]byte("other"))
			return put("md5-wrong/a", hello, "Content-MD5", base64.StdEncoding.EncodeToString(md[:]))
		}),
	},
	expectation{
		name: "an invalid Content-MD5",
		aws:  "400 InvalidDigest",
		see:  one(func(*site) request { return put("md5-none/a", hello, "Content-MD5", "hello") }),
	},
)

func withOrWithout(with bool) string {
	if with {
		return " with it"
	}
	return " without it"
}

// everyAlgorithm returns two expectations per algorithm: a right checksum and a
// wrong one.
func everyAlgorithm() []expectation {
	var all []expectation
	for _, a := range algorithms {
		all = append(all,
			expectation{
				name: "the right " + a.header(),
				aws:  stored,
				see: func(t *testing.T, s *site) string {
					return s.roundTrip(t, put(a.name+"-right/a", hello, a.header(), a.of(hello)))
				},
			},
			expectation{
				name: "a wrong " + a.header(),
				aws:  "400 BadDigest",
				see: one(func(*site) request {
					return put(a.name+"-wrong/a", hello, a.header(), a.of("other"))
				}),
				differs: differs{minio: "400 XAmzContentChecksumMismatch", ceph: "200"},
			})
	}
	return all
}
