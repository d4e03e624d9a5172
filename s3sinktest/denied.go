package s3sinktest

import (
	"fmt"
	"time"
)

// denial is a reason not to accept a signature. The services have different
// words for the same reason.
type denial int

const (
	noSignature denial = iota
	notSigV4
	malformed
	unknownKey
	badToken
	expired
	noDate
	unsignedHeaders
	badSignature
)

var s3Denials = map[denial]apiError{
	noSignature:     {status: 403, code: "AccessDenied", message: "Access Denied"},
	notSigV4:        {status: 400, code: "InvalidArgument", message: "Unsupported Authorization Type"},
	malformed:       {status: 400, code: "AuthorizationHeaderMalformed", message: "The authorization header that you provided is not valid."},
	unknownKey:      {status: 403, code: "InvalidAccessKeyId", message: "The AWS Access Key Id you provided does not exist in our records."},
	badToken:        {status: 400, code: "InvalidToken", message: "The provided token is malformed or otherwise invalid."},
	expired:         {status: 400, code: "ExpiredToken", message: "The provided token has expired."},
	noDate:          {status: 403, code: "AccessDenied", message: "AWS authentication requires a valid Date or x-amz-date header"},
	unsignedHeaders: {status: 403, code: "AccessDenied", message: "There were headers present in the request which were not signed"},
	badSignature: {status: 403, code: "SignatureDoesNotMatch", message: "The request signature we calculated does not match the signature you provided. " +
		"Check your key and signing method."},
}

var stsDenials = map[denial]apiError{
	noSignature:     {status: 403, code: "MissingAuthenticationToken", message: "Request is missing Authentication Token"},
	notSigV4:        {status: 400, code: "IncompleteSignature", message: "The request signature does not conform to AWS standards."},
	malformed:       {status: 400, code: "IncompleteSignature", message: "The request signature does not conform to AWS standards."},
	unknownKey:      {status: 403, code: "InvalidClientTokenId", message: "The security token included in the request is invalid."},
	badToken:        {status: 403, code: "InvalidClientTokenId", message: "The security token included in the request is invalid."},
	expired:         {status: 403, code: "ExpiredToken", message: "The security token included in the request is expired"},
	noDate:          {status: 400, code: "IncompleteSignature", message: "Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header."},
	unsignedHeaders: {status: 403, code: "SignatureDoesNotMatch", message: "'Host' and every 'X-Amz-' header must be a 'SignedHeader' in the AWS Authorization."},
	badSignature: {status: 403, code: "SignatureDoesNotMatch", message: "The request signature we calculated does not match the signature you provided. " +
		"Check your AWS Secret Access Key and signing method. Consult the service documentation for details."},
}

func (c *call) denied(why denial) *apiError {
	e := s3Denials[why]
	if c.service == serviceSTS {
		e = stsDenials[why]
	}
	return &e
}

// skewed is the answer to a clock that is too far off. STS sees in it a
// signature that is not valid now; S3 has a code of its own, from which the SDK
// corrects its clock.
func (c *call) skewed(date, now time.Time) *apiError {
	if c.service == serviceS3 {
		return &apiError{
			status:  403,
			code:    "RequestTimeTooSkewed",
			message: "The difference between the request time and the current time is too large.",
			details: []xmlElement{
				detail("RequestTime", date.Format(amzTimeFormat)),
				detail("ServerTime", now.Format(time.RFC3339)),
				detail("MaxAllowedSkewMilliseconds", fmt.Sprint(maxSkew.Milliseconds())),
			},
		}
	}
	message := fmt.Sprintf("Signature expired: %s is now earlier than %s (%s - 15 min.)",
		date.Format(amzTimeFormat), now.Add(-maxSkew).Format(amzTimeFormat), now.Format(amzTimeFormat))
	if date.After(now) {
		message = fmt.Sprintf("Signature not yet current: %s is still later than %s (%s + 15 min.)",
			date.Format(amzTimeFormat), now.Add(maxSkew).Format(amzTimeFormat), now.Format(amzTimeFormat))
	}
	return &apiError{status: 403, code: "SignatureDoesNotMatch", message: message}
}

func notImplemented(message string) *apiError {
	return &apiError{status: 501, code: "NotImplemented", message: message}
}
