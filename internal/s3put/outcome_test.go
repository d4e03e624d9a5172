package s3put

import "testing"

// Given a status and a code, then classify returns the expected class.
func TestClassify(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		status int
		code   string
		want   Class
	}{
		{0, "", Transient}, // no answer
		{500, "InternalError", Transient},
		{502, "BadGateway", Transient},
		{503, "SlowDown", Transient},
		{503, "", Transient}, // a proxy's page
		{429, "", Transient},
		{409, "ConditionalRequestConflict", Transient},
		{409, "OperationAborted", Transient},
		{400, "RequestTimeout", Transient},
		{400, "IncompleteBody", Transient},
		{400, "Throttling", Transient}, // STS throttles under 400
		{412, "PreconditionFailed", Transient},
		{200, "", Transient}, // an answer that broke off
		{400, "ExpiredToken", Refresh},
		{403, "ExpiredToken", Refresh},
		{400, "InvalidToken", Refresh},
		{403, "RequestTimeTooSkewed", Skew},
		{403, "AccessDenied", Parked},
		{403, "SignatureDoesNotMatch", Parked},
		{403, "", Parked},
		{401, "", Parked},
		{404, "NoSuchBucket", Parked},
		{301, "PermanentRedirect", Elsewhere},
		{307, "TemporaryRedirect", Elsewhere},
		{400, "AuthorizationHeaderMalformed", Elsewhere},
		{400, "AccessControlListNotSupported", Parked},
		{400, "KMS.DisabledException", Parked},
		{500, "KMS.KMSInvalidStateException", Parked},
		{501, "NotImplemented", Parked},
		{400, "BadDigest", Integrity},
		{400, "XAmzContentSHA256Mismatch", Integrity},
		{418, "Teapot", Transient}, // unknown: a repeat is harmless
	} {
		if got := classify(tt.status, tt.code); got != tt.want {
			t.Errorf("%d %s: %v, want %v", tt.status, tt.code, got, tt.want)
		}
	}
}
