
policies() {

# permissions of the caller, to assume the role arn:aws:iam::123456789012:role/S3Sink
# Attach to the caller:
# {
#   "Version": "2012-10-17",
#   "Statement": [
#     {
#       "Effect": "Allow",
#       "Action": [
#         "sts:AssumeRole"
#       ],
#       "Resource": [
#         "arn:aws:iam::123456789012:role/S3Sink"
#       ]
#     }
#   ]
# }

# permissions of arn:aws:iam::123456789012:role/S3Sink, to write below the prefix
inline_policy role S3Sink s3sink-write '{
  "Version": "2012-10-17",
  "Statement": [
    {
      "Sid": "WriteObjects",
      "Effect": "Allow",
      "Action": [
        "s3:PutObject"
      ],
      "Resource": [
        "arn:aws:s3:::acme-events/a${*}b/segment-logs/*"
      ]
    },
    {
      "Sid": "UseKeyThroughS3",
      "Effect": "Allow",
      "Action": [
        "kms:GenerateDataKey"
      ],
      "Resource": [
        "*"
      ],
      "Condition": {
        "StringLike": {
          "kms:ViaService": [
            "s3.*.amazonaws.com",
            "s3.*.amazonaws.com.cn"
          ]
        }
      }
    }
  ]
}'

# key policy of the key, if its policy does not leave it to IAM
# Add to the statements of the key's policy (in the console: KMS, the key, Key users):
# {
#   "Version": "2012-10-17",
#   "Statement": [
#     {
#       "Sid": "UseThroughS3",
#       "Effect": "Allow",
#       "Principal": {
#         "AWS": "arn:aws:iam::123456789012:role/S3Sink"
#       },
#       "Action": [
#         "kms:GenerateDataKey"
#       ],
#       "Resource": [
#         "*"
#       ],
#       "Condition": {
#         "StringLike": {
#           "kms:ViaService": [
#             "s3.*.amazonaws.com",
#             "s3.*.amazonaws.com.cn"
#           ]
#         }
#       }
#     }
#   ]
# }

}

lacking=
pass=read
policies
if [ -n "$lacking" ]; then
	stop 3 'Nothing was changed. Read the policies above. To write them, run this again with APPLY_MERGED=1 in the environment.'
fi
pass=write
policies
