package s3sink

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/s3sink/s3sink/internal/spool"
	"github.com/s3sink/s3sink/internal/upload"
)

// Given a session that Validate has created before recovery, when recovery
// finds keys of another KeyFormat, then uploads use a new session whose policy
// allows these keys.
func TestRecovery_SessionWithOldPolicyIsNotUsed(t *testing.T) {
	t.Parallel()
	var scopes []string // policies of the sessions, in order of creation
	transport := roundTripper(func(r *http.Request) (*http.Response, error) {
		var body []byte
		if r.Body != nil {
			var err error
			if body, err = io.ReadAll(r.Body); err != nil {
				return nil, err
			}
		}
		answer := &http.Response{StatusCode: http.StatusOK, Request: r, Header: http.Header{}, Body: http.NoBody}
		signer, _, _ := strings.Cut(r.Header.Get("Authorization"), "/")
		switch {
		case r.Method == http.MethodPost: // STS
			form, err := url.ParseQuery(string(body))
			if err != nil {
				return nil, err
			}
			answer.Body = io.NopCloser(strings.NewReader(fmt.Sprintf("<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>ASIA%d</AccessKeyId>"+
				"<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>%s</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>",
				len(scopes), time.Now().Add(time.Hour).UTC().Format(time.RFC3339))))
			scopes = append(scopes, form.Get("Policy"))
		case r.Method == http.MethodHead && signer == "":
			answer.StatusCode = http.StatusForbidden
		case r.Method == http.MethodHead:
			answer.Header.Set("X-Amz-Bucket-Region", "us-east-1")
		case signer == "AWS4-HMAC-SHA256 Credential=ASIA0":
			answer.StatusCode = http.StatusForbidden
		default:
			answer.Header.Set("Etag", `"e"`)
		}
		return answer, nil
	})
	s, err := New(t.Context(), Config{
		Bucket: "acme-events", SourceID: "checkout", KeyFormat: HiveKeys, Encryption: SSES3(),
		Credentials: AssumeRole("arn:aws:iam::123456789012:role/S3Sink", "", Via(AccessKeys("AKIA", "secret", ""))),
		HTTPClient:  &http.Client{Transport: transport}, AWS: &aws.Config{}, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close(context.Background())
	if region, err := s.client.Region(t.Context()); err != nil || region != "us-east-1" || len(scopes) != 1 {
		t.Fatalf("region %q with %d sessions, %v", region, len(scopes), err)
	}

	seg := spool.NewSegment(spool.Header{Bucket: "acme-events", Source: "checkout", Key: "segment-logs/checkout/0/x.gz"})
	spool.Memory{}.Seal(seg, func() {})
	s.widenSessions(&spool.Recovered{Sealed: []*spool.Segment{seg}})
	if _, err := s.put(t.Context(), upload.Order{Segment: seg}); err != nil {
		t.Error(err)
	}
	const want = `"Resource":["arn:aws:s3:::acme-events/events/*","arn:aws:s3:::acme-events/segment-logs/*"]`
	if len(scopes) != 2 || !strings.Contains(scopes[1], want) {
		t.Errorf("session policies %q, want in the second one %s", scopes, want)
	}
}
