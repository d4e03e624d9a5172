package s3sink

import (
	"encoding/json"
	"strings"
)

// policy is an IAM policy document.
type policy struct {
	Version   string
	Statement []statement
}

type statement struct {
	Effect    string
	Action    []string
	Resource  []string
	Condition map[string]map[string][]string `json:",omitempty"`
}

func (p policy) String() string {
	text, err := json.Marshal(p)
	if err != nil {
		return "" // strings always marshal
	}
	return string(text)
}

func allow(statements ...statement) policy {
	for i := range statements {
		statements[i].Effect = "Allow"
	}
	return policy{Version: "2012-10-17", Statement: statements}
}

// viaS3 are the names of S3 in kms:ViaService, in every partition.
var viaS3 = []string{"s3.*.amazonaws.com", "s3.*.amazonaws.com.cn"}

// writePolicy is the session policy of the role that writes: what the sink
// does, and nothing else the role may do. A session policy can only take
// away, so it must grant the key's use too: without it a bucket that encrypts
// with a KMS key would refuse every object.
func (c *Config) writePolicy(partition string) policy {
	statements := []statement{c.putStatement(partition)}
	if c.Encryption.algorithm != "AES256" {
		statements = append(statements, c.keyStatement())
	}
	return allow(statements...)
}

// putStatement allows uploads, to the folder of the key format.
func (c *Config) putStatement(partition string) statement {
	bucket, prefix := c.place()
	actions := []string{"s3:PutObject"}
	if c.ACL != "" {
		actions = append(actions, "s3:PutObjectAcl")
	}
	if len(c.Tags) > 0 {
		actions = append(actions, "s3:PutObjectTagging")
	}
	return statement{
		Action:   actions,
		Resource: []string{"arn:" + partition + ":s3:::" + bucket + "/" + literal(prefix+c.KeyFormat.folder()) + "*"},
	}
}

// keyStatement allows the use of the configured key, or where the bucket
// decides which it is, of any key through S3. An alias or a bare id does not
// say in which account the key is, and policies match neither.
func (c *Config) keyStatement() statement {
	key := c.Encryption.key
	if !strings.HasPrefix(key, "arn:") || strings.Contains(key, ":alias/") {
		key = "*"
	}
	return statement{
		Action:    []string{"kms:GenerateDataKey", "kms:Decrypt"},
		Resource:  []string{key},
		Condition: map[string]map[string][]string{"StringLike": {"kms:ViaService": viaS3}},
	}
}

// hopPolicy is the session policy of a role that only assumes the next one.
func hopPolicy(next string) policy {
	return allow(statement{Action: []string{"sts:AssumeRole"}, Resource: []string{next}})
}

// literal writes text so that a policy takes no character of it for a wild
// card or a variable.
func literal(text string) string {
	return strings.NewReplacer("*", "${*}", "?", "${?}", "$", "${$}").Replace(text)
}

// folder returns the folder that every key of the format is in, with a slash at
// its end, or "".
func (f KeyFormat) folder() string {
	before, _, _ := strings.Cut(string(f), "{")
	return before[:strings.LastIndexByte(before, '/')+1]
}
