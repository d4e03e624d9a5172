package s3sinktest_test

import (
	"io"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/s3sink/s3sink/s3sinktest"
)

// TestClose closes a server while requests are stalled, delayed and being sent.
func TestClose(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.Inject(s3sinktest.Fault{Operation: "GetObject", Stall: true})
		srv.Inject(s3sinktest.Fault{Operation: "HeadBucket", Delay: time.Hour})
		client := s3Client(srv, userKeys)
		var clients sync.WaitGroup
		expectFailure := func(call func() error) {
			clients.Go(func() {
				if err := call(); err == nil {
					t.Error("a request outlived the server")
				}
			})
		}
		expectFailure(func() error {
			_, err := client.GetObject(t.Context(), &s3.GetObjectInput{Bucket: aws.String(events), Key: aws.String("key")})
			return err
		})
		expectFailure(func() error {
			_, err := client.HeadBucket(t.Context(), &s3.HeadBucketInput{Bucket: aws.String(events)})
			return err
		})
		sending := make(chan struct{})
		body, unfinished := io.Pipe()
		expectFailure(func() error {
			req := request{method: "PUT", path: "/events/key", body: "xx"}.build(t, srv)
			req.Body = body
			client := srv.HTTPClient()
			_, err := client.Do(req)
			return err
		})
		go func() { unfinished.Write([]byte("x")); close(sending) }()
		<-sending

		var closers sync.WaitGroup
		for range 3 {
			closers.Go(srv.Close)
		}
		closers.Wait()
		unfinished.Close() // net/http's client waits for a read of its body
		clients.Wait()
		if srv.StoredPuts() != 0 {
			t.Errorf("%d bodies stored", srv.StoredPuts())
		}
		if _, err := client.PutObject(t.Context(), put("key", "body")); err == nil {
			t.Error("a closed server answered")
		}
	})
}

// TestConcurrentUse is for the race detector.
func TestConcurrentUse(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		var wg sync.WaitGroup
		for i := range 8 {
			key := string(rune('a' + i))
			wg.Go(func() {
				client := s3Client(srv, userKeys)
				if _, err := client.PutObject(t.Context(), put(key, key)); err != nil {
					t.Error(err)
				}
				if _, err := client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String(events)}); err != nil {
					t.Error(err)
				}
			})
			wg.Go(func() {
				srv.CreateBucket(key, region)
				srv.AddUser(s3sinktest.User{AccessKeyID: key, SecretAccessKey: key})
				srv.AddRole(s3sinktest.Role{ARN: hop, TrustedPrincipals: []string{user}})
				srv.Inject(s3sinktest.Fault{Operation: "HeadObject", Times: 1, Status: 500})
				srv.Objects(events)
				srv.Object(events, key)
				srv.Requests()
				srv.StoredPuts()
				srv.ClearFaults()
			})
		}
		wg.Wait()
		if n := len(srv.Objects(events)); n != 8 {
			t.Errorf("%d objects, want 8", n)
		}
	})
}

// TestCertificate looks at what a client outside of this package would see.
func TestCertificate(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		client := srv.HTTPClient()
		for _, host := range []string{"", "localhost", "example.com", "s3.s3sink.test", "sts.s3sink.test"} {
			req := request{method: "HEAD", path: "/events", unsigned: true}.build(t, srv)
			if host != "" {
				req.URL.Host = host
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatalf("%s: %v", req.URL, err)
			}
			resp.Body.Close()
			if resp.ProtoMajor != 1 {
				t.Errorf("%s: answered in %s, S3 speaks HTTP/1.1", req.URL, resp.Proto)
			}
		}
	})
}
