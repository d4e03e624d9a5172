package s3sinktest_test

import (
	"errors"
	"strings"
	"testing"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"

	"github.com/s3sink/s3sink/s3sinktest"
)

// TestWrongRegion asks a bucket in another region, and then a bucket that moved.
func TestWrongRegion(t *testing.T) {
	everywhere(t, func(t *testing.T, srv *s3sinktest.Server) {
		const elsewhere = "us-east-1"
		for _, test := range []struct {
			with            s3sinktest.RegionAnswer
			put, head, name string // where name is what the PUT's answer calls the region in
		}{
			{s3sinktest.RegionMalformed, "400 AuthorizationHeaderMalformed", "400", "<Region>"},
			{s3sinktest.RegionRedirect, "301 PermanentRedirect", "301", "events.s3."},
			{s3sinktest.RegionIllegal, "400 IllegalLocationConstraintException", "301", "The "},
		} {
			srv.AnswerWrongRegion(test.with)
			put := request{method: "PUT", path: "/events/key", body: "body", region: elsewhere}
			got := put.send(t, srv)
			if got.String() != test.put || !strings.Contains(string(got.body), test.name+region) || got.header.Get("Location") != "" {
				t.Errorf("PUT: got %v %s, want %s", got, got.body, test.put)
			}
			if named := got.header.Get("X-Amz-Bucket-Region"); (named == region) == (test.with == s3sinktest.RegionIllegal) {
				t.Errorf("%s: header names %q", test.put, named)
			}
			got = request{method: "HEAD", path: "/events", region: elsewhere}.send(t, srv)
			if got.String() != test.head || got.header.Get("X-Amz-Bucket-Region") != region || len(got.body) > 0 {
				t.Errorf("HEAD: got %v %v, want %s", got, got.header, test.head)
			}
			srv.MoveBucket(events, elsewhere)
			if got := put.send(t, srv); got.String() != "200" {
				t.Errorf("after the move: got %v", got)
			}
			srv.MoveBucket(events, region)
		}
	})
}

// TestWrongRegionToTheSDK shows that the SDK hands these answers on.
func TestWrongRegionToTheSDK(t *testing.T) {
	inBubble(t, func(t *testing.T, srv *s3sinktest.Server) {
		srv.MoveBucket(events, "eu-west-3")
		srv.AnswerWrongRegion(s3sinktest.RegionRedirect)
		_, err := s3Client(srv, userKeys).PutObject(t.Context(), put("key", "body"))
		var response *awshttp.ResponseError
		if !errors.As(err, &response) || response.HTTPStatusCode() != 301 || response.Response.Header.Get("X-Amz-Bucket-Region") != "eu-west-3" {
			t.Errorf("got %v", err)
		}
	})
}
