package s3sink_test

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// damaging is a transport that changes a byte in the bodies of PUTs, as faulty
// memory or a proxy can.
type damaging struct {
	next http.RoundTripper
	left atomic.Int64 // number of PUTs still to be damaged
}

func (d *damaging) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.Method == http.MethodPut && d.left.Add(-1) >= 0 {
		damage(r)
	}
	return d.next.RoundTrip(r)
}

func damage(r *http.Request) {
	body, err := io.ReadAll(r.Body)
	r.Body.Close()
	if err == nil {
		body[len(body)/2] ^= 1
	}
	r.Body, r.GetBody = io.NopCloser(bytes.NewReader(body)), nil
}

// Given a store that ignores x-amz-checksum-crc32 and a path that damages three
// bodies in a row, when events are tracked over https, then the store refuses
// the damaged bodies and gets the intact object. With SignPayloadOff it keeps a
// damaged object.
func TestSignPayload_DamageInTransit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		sign    s3sink.SignPayload
		damaged int
	}{
		"auto": {s3sink.SignPayloadAuto, 0},
		"on":   {s3sink.SignPayloadOn, 0},
		"off":  {s3sink.SignPayloadOff, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bubbleWith(t, []s3sinktest.Option{s3sinktest.TLS(), s3sinktest.IgnoreChecksums()}, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
				way := &damaging{next: cfg.HTTPClient.Transport}
				way.left.Store(3)
				cfg.HTTPClient.Transport, cfg.SignPayload = way, tt.sign
				sink := open(t, cfg)
				mustTrack(t, sink, map[string]string{"text": strings.Repeat("event ", 100)})
				mustClose(t, sink)
				damaged := 0
				for _, o := range server.Objects(s3sinktest.Bucket) {
					if _, err := o.Lines(); err != nil {
						damaged++
					}
				}
				if damaged != tt.damaged {
					t.Errorf("%d damaged objects stored, want %d", damaged, tt.damaged)
				}
				refused := 0
				for _, r := range server.Requests() {
					if r.Code == "XAmzContentSHA256Mismatch" {
						refused++
					}
				}
				if want := 3 - 3*tt.damaged; refused != want {
					t.Errorf("%d bodies refused, want %d", refused, want)
				}
			})
		})
	}
}

// Given a store other than AWS, then SignPayloadAuto signs the body. Over http
// every body is signed.
func TestSignPayload_Header(t *testing.T) {
	t.Parallel()
	const unsigned = "UNSIGNED-PAYLOAD"
	for name, tt := range map[string]struct {
		endpoint string
		sign     s3sink.SignPayload
		signed   bool
	}{
		"AWS, auto":   {"", s3sink.SignPayloadAuto, false},
		"AWS, on":     {"", s3sink.SignPayloadOn, true},
		"AWS, off":    {"", s3sink.SignPayloadOff, false},
		"https, auto": {"https://s3.example.com", s3sink.SignPayloadAuto, true},
		"https, on":   {"https://s3.example.com", s3sink.SignPayloadOn, true},
		"https, off":  {"https://s3.example.com", s3sink.SignPayloadOff, false},
		"http, auto":  {"http://127.0.0.1:9000", s3sink.SignPayloadAuto, true},
		"http, on":    {"http://127.0.0.1:9000", s3sink.SignPayloadOn, true},
		"http, off":   {"http://127.0.0.1:9000", s3sink.SignPayloadOff, true},
	} {
		cfg := new(nullStore).config()
		seen := make(chan string, 1)
		next := cfg.HTTPClient.Transport
		cfg.HTTPClient = &http.Client{Transport: transportFunc(func(r *http.Request) (*http.Response, error) {
			seen <- r.Header.Get("X-Amz-Content-Sha256")
			return next.RoundTrip(r)
		})}
		cfg.Endpoint, cfg.SignPayload = tt.endpoint, tt.sign
		sink := open(t, cfg)
		mustTrack(t, sink, struct{}{})
		mustClose(t, sink)
		got := <-seen
		if signed := len(got) == 64; signed != tt.signed || !signed && got != unsigned {
			t.Errorf("%s: x-amz-content-sha256 %q, want signed %t", name, got, tt.signed)
		}
	}
}

// transportFunc is a transport that is a function.
type transportFunc func(*http.Request) (*http.Response, error)

func (f transportFunc) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
