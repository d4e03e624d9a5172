package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/s3sink/s3sink"
)

// flagByField maps the field of a ConfigError to the flag that sets it.
var flagByField = map[string]string{
	"Bucket": "bucket", "Prefix": "prefix", "SourceID": "source", "KeyFormat": "key-format",
	"Region": "region", "Endpoint": "endpoint", "STSRegion": "sts-region", "STSEndpoint": "sts-endpoint",
	"Credentials.RoleARN": "role", "Credentials.ExternalID": "external-id",
	"Encryption.Key": "sse", "ACL": "acl", "ExpectedBucketOwner": "expected-owner",
	"Setup.Caller": "caller", "Setup.Writer": "writer", "Setup.BucketKMSKey": "bucket-key",
}

// nameFlags rewrites each ConfigError in err so that it names the flag instead
// of the field.
func (o *options) nameFlags(err error) error {
	var errs []error
	for _, err := range splitErrors(err) {
		var field *s3sink.ConfigError
		if !errors.As(err, &field) {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, fmt.Errorf("-%s %q: want %s%s", o.flag(field), field.Value, field.Want, sessionHint(field.Value)))
	}
	return errors.Join(errs...)
}

// flag returns the flag that set the invalid value.
func (o *options) flag(e *s3sink.ConfigError) string {
	viaHas := func(part int) bool {
		return slices.ContainsFunc(o.via, func(v string) bool {
			return strings.SplitN(v+" ", " ", 3)[part] == e.Value
		})
	}
	switch {
	case e.Field == "Credentials.RoleARN" && e.Value != o.role && viaHas(0),
		e.Field == "Credentials.ExternalID" && e.Value != o.externalID && viaHas(1):
		return "via"
	case e.Field == "Prefix" && o.prefix == "":
		return "bucket" // NAME/PATH
	}
	return cmp.Or(flagByField[e.Field], e.Field)
}

// sessionHint returns a hint if value is the ARN of a role session. Policies need
// the ARN of the role, but `aws sts get-caller-identity` prints the session.
func sessionHint(value string) string {
	p := strings.Split(value, ":")
	if len(p) != 6 || p[2] != "sts" {
		return ""
	}
	session := strings.Split(p[5], "/")
	if len(session) != 3 || session[0] != "assumed-role" {
		return ""
	}
	return fmt.Sprintf("; this is a session of arn:%s:iam::%s:role/%s (add the role's path before its name, if it has one)", p[1], p[4], session[1])
}

// splitErrors returns the errors that errors.Join has joined.
func splitErrors(err error) []error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, err := range joined.Unwrap() {
			all = append(all, splitErrors(err)...)
		}
		return all
	}
	if err == nil {
		return nil
	}
	return []error{err}
}
