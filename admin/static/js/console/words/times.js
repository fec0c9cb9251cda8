// Words of the fields for times. key: [English, 简体中文]

/** @type {Record<string, [string, string]>} */
export const WORDS = {
  times_every: ["How often", "频率"],
  times_by_hand: ["Only by hand", "仅手动"],
  times_by_hand_hint: ["Nothing happens by itself.", "不会自动执行。"],
  times_minutes: ["Every 15 minutes", "每 15 分钟"],
  times_hour: ["Every hour", "每小时"],
  times_day: ["Every day", "每天"],
  times_week: ["Every week", "每周"],
  times_month: ["Every month", "每月"],
  times_own: ["At times of my own", "自定义"],
  times_weekday: ["Day", "星期"],
  times_of_month: ["Day of the month", "日期（几号）"],
  times_at: ["Time", "时间"],
  times_cron: ["Times, as cron writes them", "cron 表达式"],
  times_cron_hint: ["Minute, hour, day, month, weekday, e.g. 30 8 * * mon-fri", "依次为分、时、日、月、星期，例如 30 8 * * mon-fri"],
  times_zone: ["Time zone", "时区"],
  times_next: ["Next: {times}", "接下来：{times}"],
};
