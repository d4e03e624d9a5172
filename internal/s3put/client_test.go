package s3put_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"

	"github.com/s3sink/s3sink/internal/s3put"
)

// transport answers requests itself and records them.
type transport struct {
	answer func(*http.Request) *http.Response

	mu   sync.Mutex
	seen []*http.Request
	body []byte // of the last request
}

func (tr *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if r.Body != nil {
		body, _ = io.ReadAll(r.Body)
		r.Body.Close()
	}
	tr.mu.Lock()
	tr.seen, tr.body = append(tr.seen, r), body
	tr.mu.Unlock()
	resp := tr.answer(r)
	resp.Request = r
	return resp, nil
}

func answer(status int, body string, header ...string) *http.Response {
	h := http.Header{}
	if status == http.StatusOK {
		h.Set("Etag", `"e"`)
	}
	for i := 0; i < len(header); i += 2 {
		h.Set(header[i], header[i+1])
	}
	return &http.Response{StatusCode: status, Header: h, Body: io.NopCloser(strings.NewReader(body)), ContentLength: int64(len(body))}
}

func s3Error(status int, code string, header ...string) *http.Response {
	return answer(status, fmt.Sprintf("<Error><Code>%s</Code><Message>no</Message><RequestId>R1</RequestId></Error>", code), header...)
}

func client(t *testing.T, tr *transport, change func(*s3put.Settings)) *s3put.Client {
	t.Helper()
	cfg, _, err := s3put.LoadConfig(t.Context(), &aws.Config{}, &http.Client{Transport: tr}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	set := s3put.Settings{
		AWS: cfg, Bucket: "events", Region: "eu-west-1",
		Credentials: func(string) aws.CredentialsProvider {
			return credentials.NewStaticCredentialsProvider("AKIA", "secret", "")
		},
	}
	if change != nil {
		change(&set)
	}
	return s3put.New(set)
}

var content = bytes.Repeat([]byte("0123456789abcdef"), 256<<10) // 4 MiB: past the SDK's threshold for Expect

func request() s3put.Request {
	return s3put.Request{
		Bucket: "events", Key: "a/b.gz", Body: bytes.NewReader(content), Size: int64(len(content)),
		CRC32: crc32.ChecksumIEEE(content), ContentType: "application/gzip",
		Metadata: map[string]string{"s3sink-events": "7"},
		SHA256:   func() ([sha256.Size]byte, error) { return sha256.Sum256(content), nil },
	}
}

func base64CRC(b []byte) string {
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(b)))
}

// Given a request, when it is put, then S3 gets one PUT with the expected URL,
// headers and body, and the result holds S3's ETag and version id.
func TestPutOnTheWire(t *testing.T) {
	t.Parallel()
	tr := &transport{answer: func(*http.Request) *http.Response {
		return answer(200, "", "Etag", `"e"`, "X-Amz-Version-Id", "v")
	}}
	c := client(t, tr, func(s *s3put.Settings) {
		s.Headers.Encryption.Algorithm = "AES256"
		s.Version = "1.2.3"
	})
	got, err := c.Put(t.Context(), request())
	if err != nil {
		t.Fatal(err)
	}
	if want := (s3put.Result{ETag: `"e"`, VersionID: "v"}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if len(tr.seen) != 1 || !bytes.Equal(tr.body, content) {
		t.Fatalf("%d requests, %d bytes", len(tr.seen), len(tr.body))
	}
	r := tr.seen[0]
	if r.Method != "PUT" || r.URL.String() != "https://events.s3.eu-west-1.amazonaws.com/a/b.gz?x-id=PutObject" {
		t.Errorf("%s %s", r.Method, r.URL)
	}
	if signed := r.Header.Get("Authorization"); !strings.Contains(signed, "SignedHeaders=") || strings.Contains(signed, "accept-encoding") {
		t.Errorf("signed %q, want no header that Google's store changes", signed)
	}
	for name, want := range map[string]string{
		"Content-Type":                 "application/gzip",
		"Content-Encoding":             "", // and so no aws-chunked
		"Expect":                       "",
		"If-None-Match":                "*", // the endpoint is AWS's
		"X-Amz-Checksum-Crc32":         base64CRC(content),
		"X-Amz-Trailer":                "",
		"X-Amz-Content-Sha256":         "UNSIGNED-PAYLOAD",
		"X-Amz-Server-Side-Encryption": "AES256",
		"X-Amz-Meta-S3sink-Events":     "7",
		"X-Amz-Sdk-Checksum-Algorithm": "",
	} {
		if got := r.Header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if got := r.Header.Get("User-Agent"); !strings.Contains(got, "s3sink/1.2.3") {
		t.Errorf("User-Agent %q", got)
	}
	if r.ContentLength != int64(len(content)) {
		t.Errorf("Content-Length %d", r.ContentLength)
	}
}

// Given a CreateOnly setting and an endpoint, then uploads send If-None-Match if
// CreateOnly is on. It is on by default at AWS only.
func TestCreateOnly(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		endpoint string
		setting  *bool
		want     string
	}{
		"AWS":            {"", nil, "*"},
		"AWS, off":       {"", aws.Bool(false), ""},
		"elsewhere":      {"https://s3.example.com", nil, ""},
		"elsewhere, on":  {"https://s3.example.com", aws.Bool(true), "*"},
		"elsewhere, off": {"https://s3.example.com", aws.Bool(false), ""},
	} {
		tr := &transport{answer: func(*http.Request) *http.Response { return answer(200, "") }}
		c := client(t, tr, func(s *s3put.Settings) { s.Endpoint, s.CreateOnly = tt.endpoint, tt.setting })
		if _, err := c.Put(t.Context(), request()); err != nil {
			t.Fatal(err)
		}
		if got := tr.seen[0].Header.Get("If-None-Match"); got != tt.want {
			t.Errorf("%s: If-None-Match %q, want %q", name, got, tt.want)
		}
	}
}

// Given a key that exists, when an object is put, then the object counts as
// stored: an earlier attempt stored it.
func TestTakenKeyIsStored(t *testing.T) {
	t.Parallel()
	tr := &transport{answer: func(*http.Request) *http.Response { return s3Error(412, "PreconditionFailed") }}
	got, err := client(t, tr, nil).Put(t.Context(), request())
	if err != nil || !got.Existed {
		t.Errorf("got %+v, %v, want an object that existed", got, err)
	}
	c := client(t, tr, func(s *s3put.Settings) { s.CreateOnly = aws.Bool(false) })
	if _, err := c.Put(t.Context(), request()); err == nil {
		t.Error("412 without If-None-Match was taken for success")
	}
}

// Given an error answer, then the error has its class, status and code, and the SDK
// neither retries nor follows a redirect.
func TestErrorsHaveFacts(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		resp   *http.Response
		class  s3put.Class
		status int
		code   string
	}{
		"denied":     {s3Error(403, "AccessDenied", "X-Amz-Request-Id", "R1"), s3put.Parked, 403, "AccessDenied"},
		"slow down":  {s3Error(503, "SlowDown"), s3put.Transient, 503, "SlowDown"},
		"proxy page": {answer(502, "<html><body><h1>502 Bad Gateway</h1></body></html>"), s3put.Transient, 502, "BadGateway"},
		"empty":      {answer(403, ""), s3put.Parked, 403, "Forbidden"},
		"redirect":   {answer(301, "", "Location", "https://elsewhere.example.com/"), s3put.Parked, 301, ""},
	} {
		tr := &transport{answer: func(*http.Request) *http.Response { return tt.resp }}
		_, err := client(t, tr, nil).Put(t.Context(), request())
		var e *s3put.Error
		if !errors.As(err, &e) {
			t.Errorf("%s: %v is not an *Error", name, err)
			continue
		}
		if e.Class != tt.class || e.Status != tt.status || tt.code != "" && !strings.EqualFold(e.Code, strings.ReplaceAll(tt.code, " ", "")) {
			t.Errorf("%s: %v %d %q, want %v %d %q", name, e.Class, e.Status, e.Code, tt.class, tt.status, tt.code)
		}
		if len(tr.seen) != 1 {
			t.Errorf("%s: %d requests, want one: retries and redirects are not the SDK's", name, len(tr.seen))
		}
	}
}

// endless is the body of an error page that never ends.
type endless struct{ read atomic.Int64 }

func (e *endless) Read(p []byte) (int, error) { e.read.Add(int64(len(p))); return len(p), nil }
func (e *endless) Close() error               { return nil }

// Given an error page that never ends, then Put returns an error and reads at most
// 4 MiB of it.
func TestErrorBodiesAreBounded(t *testing.T) {
	t.Parallel()
	body := new(endless)
	tr := &transport{answer: func(*http.Request) *http.Response {
		return &http.Response{StatusCode: 500, Header: http.Header{}, Body: body, ContentLength: -1}
	}}
	if _, err := client(t, tr, nil).Put(t.Context(), request()); err == nil {
		t.Fatal("no error")
	}
	if n := body.read.Load(); n > 4<<20 {
		t.Errorf("%d bytes of an error page were read", n)
	}
}

// refusesEarly answers before it has read the request's body. As with net/http,
// the answer cannot be read further after the request's body has ended early.
type refusesEarly struct {
	status int
	code   string
}

func (e refusesEarly) RoundTrip(r *http.Request) (*http.Response, error) {
	resp := s3Error(e.status, e.code)
	resp.Request = r
	resp.Body = io.NopCloser(io.MultiReader(bodyIsOpen{r.Body}, resp.Body))
	return resp, nil
}

// bodyIsOpen is an empty body. Read fails after the request's body is closed.
type bodyIsOpen struct{ request io.Reader }

func (b bodyIsOpen) Read([]byte) (int, error) {
	if _, err := b.request.Read(make([]byte, 1)); err != nil {
		return 0, net.ErrClosed
	}
	return 0, io.EOF
}

// Given a server that refuses a request before it has read the body, then the
// error has the code of the answer.
func TestErrorCode_RefusedBeforeTheBodyIsSent(t *testing.T) {
	t.Parallel()
	cfg, _, err := s3put.LoadConfig(t.Context(), &aws.Config{},
		&http.Client{Transport: refusesEarly{http.StatusBadRequest, "ExpiredToken"}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	_, err = client(t, nil, func(set *s3put.Settings) { set.AWS = cfg }).Put(t.Context(), request())
	var e *s3put.Error
	if !errors.As(err, &e) {
		t.Fatal(err)
	}
	if e.Status != http.StatusBadRequest || e.Code != "ExpiredToken" || e.Class != s3put.Refresh {
		t.Errorf("got %d %q, class %v, want 400 ExpiredToken, class %v: %v", e.Status, e.Code, e.Class, s3put.Refresh, err)
	}
}

// Given many attempts whose answers say that the session has ended, then the
// session is dropped once, and the next session is kept.
func TestEndedSessionIsDropped(t *testing.T) {
	t.Parallel()
	const attempts = 50
	var made, refused atomic.Int64
	all := make(chan struct{})
	cache := aws.NewCredentialsCache(aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		return aws.Credentials{AccessKeyID: fmt.Sprintf("ASIA%d", made.Add(1)), SecretAccessKey: "s", SessionToken: "t"}, nil
	}))
	tr := &transport{answer: func(r *http.Request) *http.Response {
		if !strings.Contains(r.Header.Get("Authorization"), "ASIA1/") {
			return answer(200, "")
		}
		if refused.Add(1) == attempts {
			close(all)
		}
		<-all // each has signed with the first session
		return s3Error(400, "ExpiredToken")
	}}
	c := client(t, tr, func(s *s3put.Settings) {
		s.Credentials = func(string) aws.CredentialsProvider { return cache }
	})
	var wg sync.WaitGroup
	for range attempts {
		wg.Go(func() {
			empty := s3put.Request{Bucket: "events", Key: "k", Body: bytes.NewReader(nil)}
			_, err := c.Put(t.Context(), empty)
			var e *s3put.Error
			if !errors.As(err, &e) || e.Class != s3put.Refresh {
				t.Errorf("got %v, want class refresh", err)
			}
			if _, err := c.Put(t.Context(), empty); err != nil {
				t.Errorf("with a new session: %v", err)
			}
		})
	}
	wg.Wait()
	if made.Load() != 2 {
		t.Errorf("%d sessions, want 2", made.Load())
	}
}
