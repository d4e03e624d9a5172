package s3sink_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/s3sink/s3sink"
	"github.com/s3sink/s3sink/s3sinktest"
)

// Real error bodies, and malformed ones.
const (
	stsShape = `<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>%</Code>` +
		`<Message>User: arn:aws:iam::210987654321:user/service is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::123456789012:role/S3Sink</Message></Error>` +
		`<RequestId>01234567-89ab-cdef-0123-456789abcdef</RequestId></ErrorResponse>`
	s3Shape = `<?xml version="1.0" encoding="UTF-8"?>` + "\n" +
		`<Error><Code>%</Code><Message>User: x is not authorized to perform: kms:GenerateDataKey on resource: arn:aws:kms:eu-west-1:123456789012:key/1234abcd because no identity-based policy allows it</Message>` +
		`<Region>eu-west-1</Region><RequestId>TX234S0F24A06C7</RequestId><HostId>abc=</HostId></Error>`
	sessionShape = `<AssumeRoleResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><AssumeRoleResult><Credentials><AccessKeyId>ASIA0</AccessKeyId>` +
		`<SecretAccessKey>s</SecretAccessKey><SessionToken>t</SessionToken><Expiration>2030-01-01T00:00:00Z</Expiration></Credentials></AssumeRoleResult></AssumeRoleResponse>`
)

// Given any answer of STS or S3, or of a proxy in their place, then Validate
// ends, returns the code of the row for the HTTP status, and prints neither a
// secret nor a character that moves the cursor.
func FuzzErrorBodies(f *testing.F) {
	operations := []string{"AssumeRole", "GetCallerIdentity", "PutObject"}
	bodies := []string{
		"", " ", "<", "<html><body>502 Bad Gateway</body></html>", "Access Denied", `{"Code": "AccessDenied"}`,
		`<?xml version="1.0"?><!DOCTYPE e [<!ENTITY a "aaaa">]><Error><Code>&a;&a;</Code></Error>`,
		"<Error><Code>AccessDenied</Code><Message>\x1b[2J\x07\r\nexplicit deny in a \x00policy</Message></Error>",
		"<Error><Code>AuthorizationHeaderMalformed</Code><Message>the region is wrong; expecting 'ap-south-1'</Message></Error>",
		"\xef\xbb\xbf<Error/>", "<Error><Error><Error>", strings.Repeat("<Error>", 2000), "<Error>" + strings.Repeat("x", 100_000),
		"<AssumeRoleResponse/>", "<AssumeRoleResponse><AssumeRoleResult><Credentials/></AssumeRoleResult></AssumeRoleResponse>", sessionShape,
		"<GetCallerIdentityResponse><GetCallerIdentityResult><Arn>\x1b[31m</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>",
	}
	for _, code := range []string{"AccessDenied", "RegionDisabledException", "ExpiredToken", "SignatureDoesNotMatch", "KMS.DisabledException",
		"kms:KeyNotFound", "KMS.", "PermanentRedirect", "RequestTimeTooSkewed", "ValidationError", ""} {
		for _, shape := range []string{stsShape, s3Shape} {
			body := strings.Replace(shape, "%", code, 1)
			bodies = append(bodies, body, body[:len(body)/2]) // cut off
		}
	}
	for i, body := range bodies {
		for j := range operations {
			for _, status := range []uint16{403, []uint16{200, 301, 400, 404, 412, 500, 503}[i%7]} {
				contentType := []string{"text/xml", "application/xml", "text/html", ""}[i%4]
				f.Add(uint8(j), status, contentType, []byte(body))
			}
		}
	}
	f.Fuzz(func(t *testing.T, operation uint8, status uint16, contentType string, body []byte) {
		if status < 200 || status > 599 {
			status = 200 + status%400
		}
		fault := s3sinktest.Fault{
			Operation: operations[int(operation)%len(operations)], Status: int(status),
			Body: append([]byte{}, body...), ContentType: oneHeader(contentType),
		}
		bubble(t, func(t *testing.T, server *s3sinktest.Server, cfg s3sink.Config) {
			server.Inject(fault)
			var log bytes.Buffer
			cfg.Logger, cfg.CreateOnly = slog.New(slog.NewTextHandler(&log, nil)), s3sink.CreateOnlyOn
			sink := open(t, cfg)
			began := time.Now()
			report, err := sink.ValidateReport(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if took := time.Since(began); took > 2*time.Minute {
				t.Errorf("it took %v", took)
			}
			if why := report.Err; why == nil && !mayPass(fault) {
				t.Error("it passes")
			} else if why != nil {
				checkRow(t, fault, why)
			}
			printed, err := json.Marshal(report)
			if err != nil {
				t.Error(err)
			}
			said := report.String() + string(printed) + log.String()
			if report.Err != nil {
				said += report.Err.Error()
			}
			if strings.Contains(said, "secret/access/key") {
				t.Errorf("it tells a secret:\n%s", said)
			}
			if text := report.String(); strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && !unicode.IsPrint(r) }) || len(text) > 1<<14 {
				t.Errorf("this is not for a terminal:\n%q", text)
			}
		})
	})
}

// oneHeader removes the characters that a header value cannot have.
func oneHeader(text string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
}

// mayPass reports whether Validate may succeed without the answer that the
// fault replaces.
func mayPass(f s3sinktest.Fault) bool {
	return f.Operation == "GetCallerIdentity" // not every STS-compatible service implements it
}

// checkRow compares the error with the documented row for the HTTP status.
func checkRow(t *testing.T, f s3sinktest.Fault, got *s3sink.ValidationError) {
	t.Helper()
	rows := map[string][2]s3sink.ValidationCode{ // code for 403, and code for any other status
		"GetCallerIdentity": {s3sink.CodeIntermediateRole, s3sink.CodeIntermediateRole},
		"AssumeRole":        {s3sink.CodeExternalIDRejected, s3sink.CodeAssumeRole},
		"PutObject":         {s3sink.CodePutObjectDenied, s3sink.CodePutObject},
	}[f.Operation]
	want := rows[1]
	if f.Status == http.StatusForbidden {
		want = rows[0]
	}
	if f.Operation == "AssumeRole" && f.Status < 300 && got.Code == s3sink.CodeExternalIDNotRequired {
		want = got.Code // the body held a session
	}
	if got.Code != want || got.Message != messages[want] || got.Hint == "" || got.Cause == "" {
		t.Errorf("status %d of %s: got %s, %q, hint %q; want %s", f.Status, f.Operation, got.Code, got.Message, got.Hint, want)
	}
	if f.Status >= 300 && got.Status != f.Status { // the SDK takes an error under 200 for 500
		t.Errorf("status %d, want %d", got.Status, f.Status)
	}
	if errors.Unwrap(got) == nil {
		t.Error("no cause")
	}
}
