package contract

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

const hello = "hello, hello"

// object returns the answer to a GET of an object.
func (s *site) object(t *testing.T, key string) answer {
	t.Helper()
	return s.do(t, get(key))
}

// roundTrip puts a body and reports whether a GET returns it.
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
		name: "get an object that does not exist",
		aws:  "404 NoSuchKey",
		see:  one(func(*site) request { return get("absent/a") }),
	},
	{
		name: "HEAD of an object that does not exist",
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
			ceph + "/https":   "400 XAmzContentSHA256Mismatch",
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
		differs: differs{minio: "400 AccessDenied", ceph: "403 AccessDenied"},
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

// sdkRoundTrip is a round trip through the SDK, which chooses the checksum of the
// body.
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
