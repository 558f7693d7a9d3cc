"""The embedded default: a made catalog with made shoppers, and the tiny vision-language model that reads it."""
