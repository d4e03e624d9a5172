package contract

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"hash/crc64"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const hello = "hello, hello"

// object is what a GET says of an object.
func (s *site) object(t *testing.T, key string) answer {
	t.Helper()
	return s.do(t, get(key))
}

// roundTrip puts a body and says whether a GET returns it.
func (s *site) roundTrip(t *testing.T, r request) string {
	t.Helper()
	put := s.do(t, r)
	if put.status != http.StatusOK {
		return put.String()
	}
	got := s.object(t, r.key)
	return fmt.Sprintf("%s, then %s, %s", put, got, compare(got.body, r.body))
}

func compare(got, want string) string {
	if got == want {
		return "the same bytes"
	}
	return fmt.Sprintf("%d other bytes", len(got))
}

const stored = "200, then 200, the same bytes"

var objects = []expectation{
	{
		name: "put and get",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("round-trip/a", hello))
		},
	},
	{
		name: "put and get an empty object",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("empty/a", ""))
		},
	},
	{
		name: "put and get 8 MiB",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("large/a", strings.Repeat("0123456789abcdef", 8<<20/16)))
		},
	},
	{
		name: "put over an object",
		aws:  "200, then 200, the same bytes",
		see: func(t *testing.T, s *site) string {
			s.do(t, put("over/a", "what was there before"))
			return s.roundTrip(t, put("over/a", hello))
		},
	},
	{
		name: "get what is not there",
		aws:  "404 NoSuchKey",
		see:  one(func(*site) request { return get("absent/a") }),
	},
	{
		name: "HEAD of what is not there",
		aws:  "404",
		see:  one(func(*site) request { return to(http.MethodHead, "absent/a", "") }),
	},
	{
		name: "delete",
		aws:  "204, then 404 NoSuchKey",
		differs: differs{
			double: "405 MethodNotAllowed, then 200",
		},
		see: func(t *testing.T, s *site) string {
			s.do(t, put("delete/a", hello))
			return fmt.Sprintf("%s, then %s", s.do(t, to(http.MethodDelete, "delete/a", "")), s.object(t, "delete/a"))
		},
	},
	{
		name: "put with the SDK's default integrity protection",
		aws:  stored,
		note: "Over https this is an aws-chunked body with a trailer.",
		see: func(t *testing.T, s *site) string {
			return s.sdkRoundTrip(t, "sdk/a", hello)
		},
		differs: differs{
			double + "/https": "501 NotImplemented",
		},
	},
	{
		name: "put with a signed hash of the body",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			r := put("signed/a", hello)
			r.payload = hexSHA256(hello)
			return s.roundTrip(t, r)
		},
	},
	{
		name: "put with UNSIGNED-PAYLOAD",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			r := put("unsigned/a", hello)
			r.payload = "UNSIGNED-PAYLOAD"
			return s.roundTrip(t, r)
		},
	},
	{
		name:    "put without x-amz-content-sha256",
		aws:     "400 InvalidRequest",
		differs: differs{minio: "400 AccessDenied"},
		see: one(func(*site) request {
			r := put("no-hash/a", hello)
			r.edit = func(req *http.Request) { req.Header.Del("X-Amz-Content-Sha256") }
			return r
		}),
	},
	{
		name: "put without Content-Length",
		aws:  "411 MissingContentLength",
		see: one(func(*site) request {
			r := put("no-length/a", hello)
			r.chunked = true
			return r
		}),
	},
}

// sdkRoundTrip lets the SDK choose how it protects the body.
func (s *site) sdkRoundTrip(t *testing.T, key, body string) string {
	t.Helper()
	client := s3.New(s3.Options{
		BaseEndpoint:               aws.String(s.url),
		HTTPClient:                 s.client,
		Region:                     s.region,
		UsePathStyle:               true,
		Credentials:                credentials.NewStaticCredentialsProvider(s.owner.id, s.owner.secret, s.owner.token),
		RequestChecksumCalculation: aws.RequestChecksumCalculationWhenSupported,
		RetryMaxAttempts:           1,
	})
	_, err := client.PutObject(t.Context(), &s3.PutObjectInput{
		Bucket: aws.String(s.bucket),
		Key:    aws.String(key),
		Body:   strings.NewReader(body),
	})
	if err != nil {
		return sdkAnswer(t, err)
	}
	got := s.object(t, key)
	return fmt.Sprintf("200, then %s, %s", got, compare(got.body, body))
}

func sdkAnswer(t *testing.T, err error) string {
	t.Helper()
	t.Log(err)
	var a answer
	var resp *smithyhttp.ResponseError
	var api interface{ ErrorCode() string }
	if errors.As(err, &resp) {
		a.status = resp.HTTPStatusCode()
	}
	if errors.As(err, &api) {
		a.code = api.ErrorCode()
	}
	return a.String()
}

// An algorithm is one that S3 has a checksum header for.
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
		name: "the answer to a put has the CRC32 that was sent",
		aws:  "200 with it",
		see: func(t *testing.T, s *site) string {
			crc := algorithms[0].of(hello)
			a := s.do(t, put("crc-echo/a", hello, crc32Header, crc))
			return a.String() + withOrWithout(a.header.Get(crc32Header) == crc)
		},
	},
	expectation{
		name: "a get with x-amz-checksum-mode has the CRC32 that was sent",
		aws:  "200 with it",
		see: func(t *testing.T, s *site) string {
			crc := algorithms[0].of(hello)
			s.do(t, put("crc-get/a", hello, crc32Header, crc))
			a := s.do(t, to(http.MethodGet, "crc-get/a", "", "x-amz-checksum-mode", "ENABLED"))
			return a.String() + withOrWithout(a.header.Get(crc32Header) == crc)
		},
	},
	expectation{
		name: "a wrong CRC32 stores nothing",
		aws:  "404 NoSuchKey",
		see: func(t *testing.T, s *site) string {
			s.do(t, put("crc-stored/a", hello, crc32Header, algorithms[0].of("other")))
			return s.object(t, "crc-stored/a").String()
		},
	},
	expectation{
		name:    "a CRC32 of 8 bytes",
		aws:     "400 InvalidRequest",
		differs: differs{minio: "400 InvalidArgument"},
		see: one(func(*site) request {
			return put("crc-long/a", hello, crc32Header, algorithms[2].of(hello))
		}),
	},
	expectation{
		name:    "a CRC32 that is not base64",
		aws:     "400 InvalidRequest",
		differs: differs{minio: "400 InvalidArgument"},
		see:     one(func(*site) request { return put("crc-text/a", hello, crc32Header, "hello") }),
	},
	expectation{
		name:    "two checksums",
		aws:     "400 InvalidRequest",
		differs: differs{minio: "400 InvalidArgument"},
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
		name:    "an x-amz-content-sha256 that is none",
		aws:     "400 InvalidArgument",
		differs: differs{minio: "400 XAmzContentSHA256Mismatch"},
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
		name: "a Content-MD5 that is none",
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

// everyAlgorithm tries each with the right checksum and with a wrong one.
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
				differs: differs{minio: "400 XAmzContentChecksumMismatch"},
			})
	}
	return all
}

var keyNames = []expectation{
	{
		name: "a key of 1,024 bytes",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put(longKey(1024), hello))
		},
	},
	{
		name:    "a key of 1,025 bytes",
		aws:     "400 KeyTooLongError",
		differs: differs{versitygw: "200"},
		see:     one(func(*site) request { return put(longKey(1025), hello) }),
	},
	{
		name: "a key of every character that s3sink writes",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("bytes/AZaz09.-_~=/day=2026-11-22/~2f~C3~A4/1-2_3.json.gz", hello))
		},
	},
	{
		name: "a key with spaces, quotes and signs",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put(`signs/a b+c&d@e:f,g;h!i(j)k*l'm"n%o%2Fp$q?r#s`, hello))
		},
	},
	{
		name: "a key beyond ASCII",
		aws:  stored,
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("unicode/Grüße/日本語/🙂", hello))
		},
	},
	{
		name:    "a key with an empty folder name",
		aws:     stored,
		differs: differs{minio: "400 XMinioInvalidObjectName"},
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("twice//a", hello))
		},
	},
	{
		name:    "a key that ends in a slash",
		aws:     stored,
		differs: differs{versitygw: "400 DirectoryObjectContainsData"},
		see: func(t *testing.T, s *site) string {
			return s.roundTrip(t, put("slash/a/", hello))
		},
	},
	{
		name:    "a key below another object's key",
		aws:     "200, then " + stored,
		differs: differs{versitygw: "200, then 409 ObjectParentIsFile"},
		see: func(t *testing.T, s *site) string {
			first := s.do(t, put("below/a", hello))
			return fmt.Sprintf("%s, then %s", first, s.roundTrip(t, put("below/a/b", hello)))
		},
	},
}

// longKey has no folder with a name longer than a file's may be.
func longKey(n int) string {
	return strings.Repeat("long-key/", n/9+1)[:n-1] + "k"
}

var headers = []expectation{
	{
		name: "user metadata",
		aws:  "200 with it",
		see: func(t *testing.T, s *site) string {
			s.do(t, put("meta/a", hello, "x-amz-meta-s3sink-events", "42", "x-amz-meta-run", "a-b c"))
			a := s.object(t, "meta/a")
			return a.String() + withOrWithout(a.header.Get("x-amz-meta-s3sink-events") == "42" && a.header.Get("x-amz-meta-run") == "a-b c")
		},
	},
	{
		name:    "2,048 bytes of user metadata",
		aws:     "200",
		differs: differs{minio: "400 MetadataTooLarge"},
		see:     one(func(*site) request { return put("meta-most/a", hello, "x-amz-meta-m", strings.Repeat("m", 2047)) }),
	},
	{
		name: "2,049 bytes of user metadata",
		aws:  "400 MetadataTooLarge",
		see:  one(func(*site) request { return put("meta-more/a", hello, "x-amz-meta-m", strings.Repeat("m", 2048)) }),
	},
	{
		name: "Content-Type and Content-Encoding",
		aws:  "200 text/plain gzip, the same bytes",
		see: func(t *testing.T, s *site) string {
			const body = "\x1f\x8b is how gzip begins"
			s.do(t, put("type/a", body, "Content-Type", "text/plain", "Content-Encoding", "gzip"))
			a := s.object(t, "type/a")
			return fmt.Sprintf("%s %s %s, %s", a, a.header.Get("Content-Type"), a.header.Get("Content-Encoding"), compare(a.body, body))
		},
	},
	{
		name: "no Content-Type",
		aws:  "200 binary/octet-stream",
		see: func(t *testing.T, s *site) string {
			s.do(t, put("no-type/a", hello))
			a := s.object(t, "no-type/a")
			return a.String() + " " + a.header.Get("Content-Type")
		},
	},
	{
		name: "encryption AES256",
		aws:  "200 AES256",
		see: func(t *testing.T, s *site) string {
			return sse(s.do(t, put("aes/a", hello, sseHeader, "AES256")))
		},
		differs: differs{versitygw: "200"},
	},
	{
		name: "encryption not asked for",
		aws:  "200 AES256",
		see: func(t *testing.T, s *site) string {
			return sse(s.do(t, put("no-sse/a", hello)))
		},
		differs: differs{versitygw: "200", minio: "200"},
	},
	{
		name: "encryption with a KMS key",
		aws:  "200 aws:kms with it",
		see: func(t *testing.T, s *site) string {
			a := s.do(t, put("kms/a", hello, sseHeader, "aws:kms", sseKeyHeader, s.kmsKey))
			return sse(a) + withOrWithout(strings.HasSuffix(a.header.Get(sseKeyHeader), s.kmsKey))
		},
		differs: differs{versitygw: "200 without it"},
	},
	{
		name: "encryption with a KMS key that is not there",
		aws:  "400 KMS.NotFoundException",
		see: func(t *testing.T, s *site) string {
			return sse(s.do(t, put("kms-absent/a", hello, sseHeader, "aws:kms", sseKeyHeader, "absent-key")))
		},
		differs: differs{versitygw: "200", minio: "404 kms:KeyNotFound"},
	},
	{
		name:    "a KMS key with AES256",
		aws:     "400 InvalidArgument",
		differs: differs{versitygw: "200"},
		see: func(t *testing.T, s *site) string {
			return sse(s.do(t, put("kms-aes/a", hello, sseHeader, "AES256", sseKeyHeader, s.kmsKey)))
		},
	},
	{
		name:    "encryption of another name",
		aws:     "400 InvalidEncryptionAlgorithmError",
		differs: differs{minio: "400 InvalidArgument", versitygw: "200"},
		see: func(t *testing.T, s *site) string {
			return sse(s.do(t, put("sse-bogus/a", hello, sseHeader, "ROT13")))
		},
	},
	{
		name:    "the bucket encrypts with KMS by default",
		aws:     "200 aws:kms",
		differs: differs{versitygw: "501 NotImplemented"},
		see: func(t *testing.T, s *site) string {
			bucket, a := s.kmsBucket(t)
			if a.status != http.StatusOK {
				return a.String()
			}
			r := put("a", hello)
			r.bucket = bucket
			return sse(s.do(t, r))
		},
	},
	{
		name: "storage class STANDARD",
		aws:  "200",
		see:  one(func(*site) request { return put("standard/a", hello, "x-amz-storage-class", "STANDARD") }),
	},
	{
		name:    "storage class STANDARD_IA",
		aws:     "200",
		differs: differs{minio: "400 InvalidStorageClass"},
		see:     one(func(*site) request { return put("infrequent/a", hello, "x-amz-storage-class", "STANDARD_IA") }),
	},
	{
		name:    "a storage class that there is not",
		aws:     "400 InvalidStorageClass",
		differs: differs{versitygw: "200"},
		see:     one(func(*site) request { return put("bogus-class/a", hello, "x-amz-storage-class", "BOGUS") }),
	},
	{
		name: "ACL bucket-owner-full-control",
		aws:  "200",
		see:  one(func(*site) request { return put("acl-owner/a", hello, "x-amz-acl", "bucket-owner-full-control") }),
	},
	{
		name:    "ACL private",
		aws:     "400 AccessControlListNotSupported",
		note:    "Buckets have no ACLs by default since 2023.",
		differs: differs{minio: "200", versitygw: "200"},
		see:     one(func(*site) request { return put("acl-private/a", hello, "x-amz-acl", "private") }),
	},
	{
		name: "tags",
		aws:  "200",
		see:  one(func(*site) request { return put("tags/a", hello, "x-amz-tagging", "team=data&tier=1") }),
	},
	{
		name:    "the wrong expected bucket owner",
		aws:     "403 AccessDenied",
		see:     one(func(*site) request { return put("owner/a", hello, "x-amz-expected-bucket-owner", "999999999999") }),
		differs: differs{minio: "200"},
	},
}

const (
	sseHeader    = "x-amz-server-side-encryption"
	sseKeyHeader = "x-amz-server-side-encryption-aws-kms-key-id"
)

// sse is an answer, with what it says of encryption.
func sse(a answer) string {
	return strings.TrimSpace(a.String() + " " + a.header.Get(sseHeader))
}

var createOnly = []expectation{
	{
		name: "If-None-Match: * twice",
		aws:  "200, then 412 PreconditionFailed, and the first stays",
		see: func(t *testing.T, s *site) string {
			first := s.do(t, put("once/a", "first", "If-None-Match", "*"))
			second := s.do(t, put("once/a", "second", "If-None-Match", "*"))
			stays := "the second replaced it"
			if s.object(t, "once/a").body == "first" {
				stays = "the first stays"
			}
			return fmt.Sprintf("%s, then %s, and %s", first, second, stays)
		},
	},
	{
		name: "If-None-Match: * by 16 at once",
		aws:  "1 created it, 15 got 412 or 409",
		see: func(t *testing.T, s *site) string {
			var created, refused int
			var mu sync.Mutex
			var wg sync.WaitGroup
			for i := range 16 {
				wg.Go(func() {
					a := s.do(t, put("race/a", fmt.Sprint(i), "If-None-Match", "*"))
					mu.Lock()
					defer mu.Unlock()
					switch a.status {
					case http.StatusOK:
						created++
					case http.StatusPreconditionFailed, http.StatusConflict:
						refused++
					}
				})
			}
			wg.Wait()
			return fmt.Sprintf("%d created it, %d got 412 or 409", created, refused)
		},
	},
	{
		name: "If-None-Match: * needs s3:PutObject alone",
		aws:  "200, then 412 PreconditionFailed",
		see: func(t *testing.T, s *site) string {
			r := put("allowed/once", hello, "If-None-Match", "*").as(s.writer)
			return fmt.Sprintf("%s, then %s", s.do(t, r), s.do(t, r))
		},
	},
	{
		name:    "If-None-Match: * over 8 MiB, refused",
		aws:     "412 PreconditionFailed",
		differs: differs{versitygw: "no answer, at times"},
		see: func(t *testing.T, s *site) string {
			s.do(t, put("once-large/a", hello))
			return s.large(t, put("once-large/a", "", "If-None-Match", "*"))
		},
	},
	{
		name:    "If-None-Match: * over 8 MiB, refused, with Expect: 100-continue",
		aws:     "412 PreconditionFailed",
		differs: differs{versitygw: "no answer, at times"},
		see: func(t *testing.T, s *site) string {
			s.do(t, put("once-expect/a", hello))
			return s.large(t, put("once-expect/a", "", "If-None-Match", "*", "Expect", "100-continue"))
		},
	},
}

// large sends a request with 8 MiB that it is not to be allowed to send. What
// is looked at is whether the answer can be read, 10 times over: a server that
// closes the connection while the body comes destroys its own answer.
func (s *site) large(t *testing.T, r request) string {
	t.Helper()
	body := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	r.payload = "UNSIGNED-PAYLOAD"
	says := ""
	for i := range 10 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		req := s.sign(ctx, t, r)
		req.Body = io.NopCloser(bytes.NewReader(body))
		req.ContentLength = int64(len(body))
		a := s.send(t, req)
		cancel()
		switch {
		case a.status == 0:
			return "no answer, at times"
		case i > 0 && a.String() != says:
			return says + ", then " + a.String()
		}
		says = a.String()
	}
	return says
}
