package contract

import (
	"bufio"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink"
)

// everything is the result of a complete run of the sink.
const everything = "4000 events of 2 sources, each once"

const aboutSink = `On Ceph ` + "`Config.ACL`" + ` is ` + "`bucket-owner-full-control`" + `. Without it the bucket's owner may not read the
objects of another user. MinIO and Ceph refuse a session policy with the KMS actions of a sink,
unless its encryption is ` + "`SSES3()`" + `.

`

// theSink tests the library itself, from New to Close. The writer may only
// s3:PutObject below one folder; the owner reads the objects back.
var theSink = []expectation{
	{
		name: "sink: access keys",
		aws:  everything,
		see: func(t *testing.T, s *site) string {
			return s.run(t, s.sink(s.asWriter()))
		},
	},
	{
		name: "sink: a role",
		aws:  everything,
		note: noteRelay,
		see: func(t *testing.T, s *site) string {
			return s.run(t, s.sink(s.asRole()))
		},
		differs: differs{minio: "parked: 400 InvalidParameterValue", ceph: "parked: 400 MalformedPolicyDocument"},
	},
	{
		name: "sink: a role, with SSE-S3",
		aws:  everything + ", AES256",
		note: noteRelay,
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s.asRole())
			cfg.Encryption = s3sink.SSES3()
			return s.run(t, cfg)
		},
		differs: differs{versitygw: everything, ceph: everything},
	},
	{
		name: "sink: a role, without a session policy",
		aws:  everything,
		note: noteRelay,
		see: func(t *testing.T, s *site) string {
			return s.run(t, s.sink(s.asRole(s3sink.WithoutSessionPolicy())))
		},
	},
	{
		name:  "sink: sessions of two seconds",
		aws:   everything + ", over several sessions",
		needs: []need{needsShortSession, needsExpiredToken},
		see:   func(t *testing.T, s *site) string { return s.runOverSessions(t) },
	},
	{
		name: "sink: 3 lost answers",
		aws:  everything + ", some there already",
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s.asWriter())
			cfg.HTTPClient = newLossy(s.client, 3)
			return s.run(t, cfg)
		},
	},
	{
		name: "sink: SSE-S3",
		aws:  everything + ", AES256",
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s.asWriter())
			cfg.Encryption = s3sink.SSES3()
			return s.run(t, cfg)
		},
		differs: differs{versitygw: everything, ceph: everything},
	},
	{
		name: "sink: SSE-KMS",
		aws:  everything + ", aws:kms",
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s.asWriter())
			cfg.Encryption = s3sink.SSEKMS(s.kmsKey)
			return s.run(t, cfg)
		},
		differs: differs{versitygw: everything},
	},
	{
		name: "sink: no permission",
		aws:  "parked: 403 AccessDenied",
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s.asWriter())
			cfg.Bucket = s.bucket + "/outside"
			return s.run(t, cfg)
		},
	},
	{
		name: "sink: no such bucket",
		aws:  "parked: 404 NoSuchBucket",
		see: func(t *testing.T, s *site) string {
			cfg := s.sink(s3sink.AccessKeys(s.owner.id, s.owner.secret, s.owner.token))
			cfg.Bucket = "contract-no-such-bucket"
			return s.run(t, cfg)
		},
	},
}

const noteRelay = "versitygw has no STS, so the STS of s3sinktest stands beside it."

var sinks atomic.Int64

// sink returns the Config of a sink that writes to the site, with a source id of
// its own.
func (s *site) sink(as s3sink.Credentials) s3sink.Config {
	return s3sink.Config{
		Bucket:       s.bucket + "/allowed",
		SourceID:     fmt.Sprintf("source-%d", sinks.Add(1)),
		Region:       s.region,
		Endpoint:     s.url,
		UsePathStyle: true,
		ACL:          s.acl,
		STSRegion:    s.region,
		STSEndpoint:  s.sinkSTS,
		Credentials:  as,
		CreateOnly:   s3sink.CreateOnlyOn,
		// Several objects, each longer than largeRequest.
		MaxObjectBytes: 200_000,
		MaxEventBytes:  4_000,
		Logger:         slog.New(slog.DiscardHandler),
		HTTPClient:     s.client,
		AWS:            &aws.Config{},
	}
}

func (s *site) asWriter() s3sink.Credentials {
	return s3sink.AccessKeys(s.writer.id, s.writer.secret, s.writer.token)
}

// asRole returns credentials that assume the site's role.
func (s *site) asRole(opts ...s3sink.RoleOption) s3sink.Credentials {
	caller := s3sink.AccessKeys(s.caller.id, s.caller.secret, s.caller.token)
	return s3sink.AssumeRole(s.role, s.externalID, append(opts, s3sink.Via(caller))...)
}

// run sends 4,000 events of two sources, half before a Flush and half after. It
// returns the outcome, or the reason why uploads are parked.
func (s *site) run(t *testing.T, cfg s3sink.Config) string {
	t.Helper()
	return s.runWith(t, cfg, func(ctx context.Context, r *run) {
		r.track(ctx, t, 0, 2000)
		r.flush(ctx, t)
		r.track(ctx, t, 2000, 4000)
	})
}

// A run is one sink, from New to Close.
type run struct {
	sink   *s3sink.Sink
	source string
	sent   lines

	mu       sync.Mutex
	uploaded map[string]int // by key
}

// lines is a multiset.
type lines map[string]int

func (s *site) runWith(t *testing.T, cfg s3sink.Config, feed func(context.Context, *run)) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ctx, park := context.WithCancelCause(ctx)
	defer park(nil)
	r := &run{source: cfg.SourceID, sent: make(lines), uploaded: make(map[string]int)}
	cfg.Hooks.Uploaded = func(up s3sink.Uploaded) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.uploaded[up.Object.Key]++
	}
	cfg.Hooks.Parked = func(p s3sink.Parked) { park(p.Err) }
	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	r.sink = sink
	feed(ctx, r)
	err = sink.Close(ctx)
	var why *s3sink.UploadError
	switch {
	case errors.As(context.Cause(ctx), &why):
		return fmt.Sprintf("parked: %d %s", why.Status, why.Code)
	case err != nil:
		t.Fatalf("Close: %v", err)
	}
	return s.outcome(t, r, cfg)
}

// track tracks events until ctx ends, alternately of the sink's source and of
// another.
func (r *run) track(ctx context.Context, t *testing.T, from, to int) {
	t.Helper()
	other, err := r.sink.Source(r.source + "-other")
	if err != nil {
		t.Fatal(err)
	}
	for i := from; i < to && ctx.Err() == nil; i++ {
		line := event(i)
		take := r.sink.TrackLineContext
		if i%2 == 1 {
			take = other.TrackLineContext
		}
		if err := take(ctx, line); err != nil && ctx.Err() == nil {
			t.Fatalf("event %d: %v", i, err)
		}
		r.sent[string(line)]++
	}
}

func (r *run) flush(ctx context.Context, t *testing.T) {
	t.Helper()
	if err := r.sink.Flush(ctx); err != nil && ctx.Err() == nil {
		t.Fatalf("Flush: %v", err)
	}
}

// event returns an event that does not compress well.
func event(i int) []byte {
	noise := make([]byte, 400)
	for j := range noise {
		noise[j] = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-_"[rand.IntN(64)]
	}
	line, err := json.Marshal(map[string]any{"event": "Signed Up", "n": i, "noise": string(noise)})
	if err != nil {
		panic(err)
	}
	return line
}

// outcome reads all objects and compares their lines with the events that were
// sent.
func (s *site) outcome(t *testing.T, r *run, cfg s3sink.Config) string {
	t.Helper()
	got := make(lines)
	objects := 0
	encryption := ""
	_, folder, _ := strings.Cut(cfg.Bucket, "/")
	for _, source := range []string{r.source, r.source + "-other"} {
		for _, key := range slices.Concat(s.list(t, path.Join(folder, "segment-logs", source)+"/", 1000)...) {
			objects++
			o := s.object(t, key)
			if o.status != http.StatusOK {
				return "the bucket's owner gets " + o.String()
			}
			encryption = o.header.Get(sseHeader)
			for _, line := range unpack(t, key, o.body) {
				got[line]++
			}
			if n := r.uploaded[key]; n != 1 {
				t.Errorf("%s: %d hooks said that it is uploaded, want 1", key, n)
			}
		}
	}
	st := r.sink.Stats()
	if st.Objects != int64(objects) || st.Delivered != int64(len(r.sent)) {
		t.Errorf("%d objects in the bucket; %+v", objects, st)
	}
	t.Logf("%d objects, %d attempts, %d lost answers", objects, st.Attempts, st.LostAnswers)
	for line, n := range r.sent {
		if got[line] != n {
			return fmt.Sprintf("%d times, not %d: %s", got[line], n, line)
		}
	}
	if len(got) != len(r.sent) {
		return fmt.Sprintf("%d lines that nobody sent", len(got)-len(r.sent))
	}
	says := fmt.Sprintf("%d events of 2 sources, each once", len(got))
	if st.LostAnswers > 0 {
		says += ", some there already" // no count, it can be below 3: the answer to a retry may get lost too
	}
	if cfg.Encryption.String() != s3sink.BucketDefault().String() && encryption != "" {
		says += ", " + encryption
	}
	return says
}

// unpack returns the lines of an object, which must be one gzip member.
func unpack(t *testing.T, key, body string) []string {
	t.Helper()
	packed := strings.NewReader(body)
	r, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatalf("%s: %v", key, err)
	}
	r.Multistream(false)
	var all []string
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		all = append(all, sc.Text())
	}
	if sc.Err() != nil || packed.Len() != 0 {
		t.Fatalf("%s: %v, %d bytes behind the first gzip member", key, sc.Err(), packed.Len())
	}
	return all
}

// runOverSessions sends events for five seconds, with sessions of two seconds.
func (s *site) runOverSessions(t *testing.T) string {
	t.Helper()
	var mu sync.Mutex // held while the provider uses t
	sessions, over := 0, false
	provider := aws.CredentialsProviderFunc(func(context.Context) (aws.Credentials, error) {
		mu.Lock()
		defer mu.Unlock()
		if over { // the SDK's cache may request one more, and no upload waits for it
			return aws.Credentials{}, errors.New("the test is over")
		}
		sessions++
		expires := time.Now().Add(shortLife)
		k := s.session(t, shortLife)
		return aws.Credentials{
			AccessKeyID: k.id, SecretAccessKey: k.secret, SessionToken: k.token,
			CanExpire: true, Expires: expires,
		}, nil
	})
	cfg := s.sink(s3sink.Provider(provider))
	says := s.runWith(t, cfg, func(ctx context.Context, r *run) {
		again := time.NewTicker(5 * time.Second / 100)
		defer again.Stop()
		for i := 0; i < 4000; i += 40 {
			r.track(ctx, t, i, i+40)
			r.flush(ctx, t)
			select {
			case <-again.C:
			case <-ctx.Done():
			}
		}
	})
	mu.Lock()
	defer mu.Unlock()
	over = true
	if sessions > 2 {
		says += ", over several sessions"
	}
	return says
}

// lossy loses the answers to some requests with a large body: the server has
// received the request, and the connection is cut when the answer arrives.
type lossy struct{ left atomic.Int64 } // answers still to lose

// largeRequest is more than a TLS handshake sends and less than the size of an
// object.
const largeRequest = 64 << 10

// newLossy returns a copy of a client that loses n answers.
func newLossy(like *http.Client, n int64) *http.Client {
	l := new(lossy)
	l.left.Store(n)
	transport := like.Transport.(*http.Transport).Clone()
	var dialer net.Dialer
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &lossyConn{Conn: conn, lossy: l}, nil
	}
	if transport.TLSClientConfig != nil {
		// With TLS 1.3 a read may return data that is not part of an answer.
		transport.TLSClientConfig.MaxVersion = tls.VersionTLS12
	}
	return &http.Client{Transport: transport, CheckRedirect: like.CheckRedirect}
}

type lossyConn struct {
	net.Conn
	lossy   *lossy
	written atomic.Int64
}

// Write counts the bytes sent since the last answer.
func (c *lossyConn) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.written.Add(int64(n))
	return n, err
}

// Read returns the answer of the server, unless it is to be lost.
func (c *lossyConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.written.Swap(0) >= largeRequest && c.lossy.left.Add(-1) >= 0 {
		c.Close()
		return 0, syscall.ECONNRESET
	}
	return n, err
}
