package s3sink_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

func Example() {
	ctx := context.Background()
	server := s3sinktest.NewServer() // S3 and STS in this process: no account needed
	defer server.Close()

	sink, err := s3sink.New(ctx, server.Config())
	if err != nil {
		log.Fatal(err) // every problem with the Config at once
	}
	if err := sink.Track(map[string]any{"event": "Signed Up", "plan": "pro"}); err != nil {
		log.Print(err)
	}
	if err := sink.Close(ctx); err != nil {
		log.Fatal(err) // says how much is not in S3, and why
	}
	for _, object := range server.Objects(s3sinktest.Bucket) {
		fmt.Println(object.Metadata["s3sink-events"], "event below", strings.Split(object.Key, "/")[:2])
	}
	// Output: 1 event below [segment-logs test-source]
}

func ExampleSink_TrackContext() {
	ctx := context.Background()
	server := s3sinktest.NewServer()
	defer server.Close()
	sink, err := s3sink.New(ctx, server.Config())
	if err != nil {
		log.Fatal(err)
	}
	defer sink.Close(ctx)

	// Track never waits: without room it returns ErrBufferFull. TrackContext
	// waits for room as long as its context allows.
	wait, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	err = sink.TrackContext(wait, s3sink.Event{
		Type:       s3sink.TypeTrack, // a call of the Segment Spec: checked and stamped
		UserID:     "user-42",
		Event:      "Order Completed",
		Properties: map[string]any{"total": 99.5, "currency": "EUR"},
	})
	var bad *s3sink.EventError
	switch {
	case err == nil:
		fmt.Println("taken")
	case errors.As(err, &bad):
		fmt.Println("this event is wrong:", bad.Problem)
	default:
		fmt.Println("no room within two seconds:", err)
	}
	// Output: taken
}

func ExampleSink_TrackLine() {
	ctx := context.Background()
	server := s3sinktest.NewServer()
	defer server.Close()
	sink, err := s3sink.New(ctx, server.Config())
	if err != nil {
		log.Fatal(err)
	}
	defer sink.Close(ctx)

	// A line that is JSON already is copied, not parsed.
	fmt.Println(sink.TrackLine([]byte(`{"event":"Signed Up"}`)))
	fmt.Println(sink.TrackLine([]byte("two\nlines")))
	// Output:
	// <nil>
	// s3sink: event: a line that is not an object; want one JSON object
}

func ExampleSink_Source() {
	ctx := context.Background()
	server := s3sinktest.NewServer()
	defer server.Close()
	sink, err := s3sink.New(ctx, server.Config())
	if err != nil {
		log.Fatal(err)
	}
	// One sink serves many tenants: each id has its own folder, and they
	// share memory, uploads and bucket.
	for _, tenant := range []string{"acme", "globex"} {
		source, err := sink.Source(tenant)
		if err != nil {
			log.Fatal(err)
		}
		if err := source.Track(map[string]any{"tenant": tenant}); err != nil {
			log.Fatal(err)
		}
	}
	if err := sink.Close(ctx); err != nil {
		log.Fatal(err)
	}
	for _, object := range server.Objects(s3sinktest.Bucket) {
		fmt.Println(strings.Split(object.Key, "/")[1])
	}
	// Output:
	// acme
	// globex
}

// Each customer has a bucket and a role of their own, and so a sink of their
// own: what goes wrong with one does not touch the others.
func ExampleNew_customers() {
	ctx := context.Background()
	server := s3sinktest.NewServer()
	defer server.Close()
	service := server.Config() // the service's own identity and endpoints

	sinks := map[string]*s3sink.Sink{}
	for _, customer := range []string{"acme", "globex"} {
		cfg := service
		cfg.Bucket, cfg.SourceID = customer+"-events", customer
		cfg.MaxMemory = 16 << 20
		if customer == "acme" { // globex has not made its bucket yet
			server.CreateBucket(cfg.Bucket, s3sinktest.Region)
		}
		sink, err := s3sink.New(ctx, cfg)
		if err != nil {
			log.Fatal(err)
		}
		sinks[customer] = sink
	}
	for _, sink := range sinks {
		if err := sink.Track(map[string]any{"event": "Signed Up"}); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println("acme:", sinks["acme"].Close(ctx))

	var invalid *s3sink.ValidationError
	if errors.As(sinks["globex"].Validate(ctx), &invalid) {
		fmt.Println("globex:", invalid.Hint)
	}
	server.CreateBucket("globex-events", s3sinktest.Region)
	fmt.Println("globex:", sinks["globex"].Validate(ctx))
	fmt.Println("globex:", sinks["globex"].Close(ctx))
	// Output:
	// acme: <nil>
	// globex: There is no bucket globex-events. Fix: Create it, or correct Config.Bucket.
	// globex: <nil>
	// globex: <nil>
}

func ExampleSink_Validate() {
	ctx := context.Background()
	server := s3sinktest.NewServer()
	defer server.Close()
	cfg := server.Config()
	server.AddRole(s3sinktest.Role{ARN: s3sinktest.RoleARN, TrustedPrincipals: []string{"*"}}) // demands no external id
	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer sink.Close(ctx)

	err = sink.Validate(ctx)
	var invalid *s3sink.ValidationError
	if errors.As(err, &invalid) {
		fmt.Println(invalid.Code)
		fmt.Println(invalid.Message)
		fmt.Println(invalid.Hint)
	}
	// Output:
	// ExternalIDNotRequired
	// Access Denied. Please configure External ID in the AWS IAM Console. Learn more.
	// The role arn:aws:iam::123456789012:role/S3Sink can be assumed without its external id, so its trust policy does not demand it. Fix: Replace the statement for the caller in the trust policy of arn:aws:iam::123456789012:role/S3Sink; a condition "StringEquals" on sts:ExternalId is missing there. A change takes some seconds to be known everywhere. In the trust policy of arn:aws:iam::123456789012:role/S3Sink: {"Effect":"Allow","Principal":{"AWS":"arn:aws:iam::210987654321:user/service"},"Action":["sts:AssumeRole"],"Condition":{"StringEquals":{"sts:ExternalId":["s3sinktest-external-id"]}}}
}

func ExampleSink_Flush() {
	ctx := context.Background()
	server := s3sinktest.NewServer()
	defer server.Close()
	sink, err := s3sink.New(ctx, server.Config())
	if err != nil {
		log.Fatal(err)
	}
	defer sink.Close(ctx)
	if err := sink.Track(map[string]any{"event": "Signed Up"}); err != nil {
		log.Fatal(err)
	}

	// Before a deployment, or at the end of a test: everything taken so far
	// is in S3 when Flush returns nil.
	err = sink.Flush(ctx)
	st := sink.Stats()
	fmt.Println(err, st.Accepted, "accepted,", st.Delivered, "delivered,", st.Pending, "pending")
	// Output: <nil> 1 accepted, 1 delivered, 0 pending
}

func ExampleSink_Sync() {
	ctx := context.Background()
	server := s3sinktest.NewServer()
	defer server.Close()
	dir, err := os.MkdirTemp("", "s3sink-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg := server.Config()
	cfg.SpoolDir = filepath.Join(dir, "spool")
	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	defer sink.Close(ctx)

	// A consumer of a log or a queue: an offset is committed once the events up
	// to it are on disk. One Sync serves the whole batch.
	committed := 0
	for _, batch := range [][]string{{`{"n":1}`, `{"n":2}`}, {`{"n":3}`}} {
		for _, record := range batch {
			if err := sink.TrackLineContext(ctx, []byte(record)); err != nil {
				log.Fatal(err)
			}
		}
		if err := sink.Sync(ctx); err != nil {
			log.Fatal(err) // the batch may not be on disk: the offset stays
		}
		committed += len(batch)
	}
	fmt.Println("committed up to", committed)
	// Output: committed up to 3
}

func ExampleSink_Close() {
	ctx := context.Background()
	server := s3sinktest.NewServer()
	defer server.Close()
	server.Inject(s3sinktest.Fault{Operation: "PutObject", Status: 503, Code: "SlowDown"}) // S3 is down
	dir, err := os.MkdirTemp("", "s3sink-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	cfg := server.Config()
	cfg.SpoolDir = filepath.Join(dir, "spool")
	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	if err := sink.Track(map[string]any{"event": "Signed Up"}); err != nil {
		log.Fatal(err)
	}

	// With a SpoolDir a short context is enough: when it ends, the events that
	// are not in S3 are fsynced, and the next process delivers them.
	ctx, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	err = sink.Close(ctx)
	var rest *s3sink.CloseError
	if errors.Is(err, s3sink.ErrLeftInSpool) && errors.As(err, &rest) {
		fmt.Println("nothing is lost,", rest.Left, "event is in the spool")
	}
	// Output: nothing is lost, 1 event is in the spool
}

func ExampleAssumeRole() {
	// The identity of the service may assume an intermediate role, and the
	// intermediate role may assume the role of the customer, which demands an
	// external id.
	credentials := s3sink.AssumeRole("arn:aws:iam::123456789012:role/S3Sink", "workspace-7",
		s3sink.WithSessionName("orders"),
		s3sink.Via(s3sink.AssumeRole("arn:aws:iam::210987654321:role/Exporter", "")))
	fmt.Println(credentials)
	// Output: role arn:aws:iam::123456789012:role/S3Sink
}

func ExampleHooks() {
	ctx := context.Background()
	server := s3sinktest.NewServer()
	defer server.Close()
	cfg := server.Config()
	cfg.Hooks.Uploaded = func(u s3sink.Uploaded) {
		fmt.Println(u.Object.Events, "events after", u.Attempts, "attempt")
	}
	sink, err := s3sink.New(ctx, cfg)
	if err != nil {
		log.Fatal(err)
	}
	for range 3 {
		if err := sink.Track(struct{}{}); err != nil {
			log.Fatal(err)
		}
	}
	if err := sink.Close(ctx); err != nil { // waits for hooks, too
		log.Fatal(err)
	}
	// Output: 3 events after 1 attempt
}

func ExampleConfigError() {
	_, err := s3sink.New(context.Background(), s3sink.Config{Bucket: "s3://acme-events", MaxObjectAge: time.Millisecond})
	fmt.Println(err)
	// Output:
	// s3sink: Config.Bucket "s3://acme-events": want the name of a bucket (3 to 63 of a-z 0-9 . -), optionally followed by /prefix; not a URI, not an ARN
	// s3sink: Config.SourceID "": want 1 to 256 bytes
	// s3sink: Config.MaxObjectAge "1ms": want 100ms to 24h0m0s
}
